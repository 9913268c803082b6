"""Tasks that run in the worker itself: recorded as usual, and the worker lives on."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from dayfly.models import Job, JobStatus, Worker
from tests.helpers import children_of, run_script
from tests.lifecycle import tasks
from tests.lifecycle.test_signals import signal_task
from tests.workers import (
    SETTINGS,
    finished,
    job_of,
    outcomes_of,
    run_worker,
    running_worker,
    runs_of,
    waits_for,
    worker_environment,
)

pytestmark = pytest.mark.django_db(transaction=True)

FLAGS = ("--launcher=inline", "--interval=0.05")


def run_batch(*flags: str, **how: object) -> str:
    # The backport logs tracebacks of tasks, and nothing captures what is written in the worker.
    return run_worker("--launcher=inline", "--batch", *flags, complains=True, **how)


def test_task_runs_in_the_worker_and_is_recorded() -> None:
    result = tasks.tells_pid.enqueue()

    with running_worker(*FLAGS) as worker:
        finished(result)
        assert children_of(worker.pid) == set()
        assert worker.stops() == 0
        log = worker.log()

    result.refresh()
    (run,) = runs_of(result)
    assert result.return_value == run.child_pid == worker.pid
    assert (run.outcome, run.attempt, run.child_index) == ("returned", 1, 1)
    assert run.child_rss_start_bytes > 1_000_000
    assert run.cpu_user_seconds is not None
    assert (run.fork_seconds, run.parent_rss_before_fork_bytes) == (None, None)
    assert log.count("nothing is isolated") == 1
    assert "Children come from" not in log
    assert log.count(" WARNING ") == 1


def test_failures_are_recorded_and_the_worker_goes_on() -> None:
    bad = {
        "builtins.ValueError": tasks.raises.enqueue("so"),
        "builtins.SystemExit": tasks.sys_exits.enqueue(3),
        "dayfly.exceptions.ResultNotJSON": tasks.returns_a_set.enqueue(),
    }
    good = tasks.adds_later.enqueue(1, b=2)

    log = run_batch("--concurrency=3")

    for class_path, result in bad.items():
        (run,) = runs_of(result)
        assert job_of(result).status == JobStatus.FAILED
        assert (run.outcome, run.exception_class_path) == ("raised", class_path)
    (run,) = runs_of(next(iter(bad.values())))
    assert "raise ValueError(text)" in run.traceback
    assert "dayfly/worker" not in run.traceback
    good.refresh()
    assert good.return_value == 3
    assert "concurrency=1" in log
    assert Worker.objects.get().concurrency == 1


def test_output_goes_to_the_terminal() -> None:
    result = tasks.prints.enqueue("hello there")

    log = run_batch("--show-output")

    (run,) = runs_of(result)
    assert (run.output, run.output_bytes) == ("", None)
    assert log.count("hello there\n") == 1


def test_connection_of_the_worker_is_out_of_reach() -> None:
    results = [
        task.enqueue()
        for _ in range(2)
        for task in (
            tasks.leaves_a_transaction_open,
            tasks.uses_the_database,
            tasks.closes_all_connections,
            tasks.breaks_a_transaction,
            tasks.uses_the_database,
        )
    ]

    log = run_batch()

    endings = [outcomes_of(result)[0] for result in results]
    assert endings == ["returned", "returned", "returned", "raised", "returned"] * 2
    assert "IntegrityError" in runs_of(results[3])[0].exception_class_path
    assert "The database" not in log


def test_limits_are_said_to_be_without_effect() -> None:
    results = [tasks.returns.enqueue() for _ in range(2)]

    log = run_batch(options={"TIMEOUT_SECONDS": 5, "MEMORY_LIMIT_BYTES": 1 << 30})

    assert [outcomes_of(result) for result in results] == [["returned"]] * 2
    assert log.count("Without effect") == 1
    assert "itself: timeout_seconds, memory_bytes\n" in log


def test_task_runs_in_the_working_directory(tmp_path: Path) -> None:
    result = tasks.tells_place.enqueue()

    run_batch(f"--workdir={tmp_path}")

    result.refresh()
    assert result.return_value == [str(tmp_path), str(tmp_path)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_lets_the_task_finish(tmp_path: Path, number: int) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    runs = tasks.waits.enqueue(str(mark), str(go))
    later = tasks.returns.enqueue()
    with running_worker(*FLAGS) as worker:
        assert int(waits_for(mark)) == worker.pid
        worker.signal(number)
        go.touch()
        assert worker.ends() == 0

    assert outcomes_of(runs) == ["returned"]
    assert (job_of(later).status, job_of(later).epoch) == (JobStatus.READY, 0)
    assert Worker.objects.get().stopped_at is not None


def test_second_signal_interrupts_the_task_and_gives_its_job_back(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    result = tasks.waits_the_first_time.enqueue(str(mark))
    with running_worker(*FLAGS) as worker:
        waits_for(mark)
        worker.signal(signal.SIGTERM)
        worker.signal(signal.SIGINT)  # another one, as two of a kind that come at once are one
        assert worker.ends() == 0

    job = job_of(result)
    (run,) = runs_of(result)
    assert (job.status, job.attempts, job.worker_id) == (JobStatus.READY, 0, None)
    assert (run.outcome, run.exception_class_path) == (
        "stopped",
        "dayfly.exceptions.WorkerStopped",
    )

    run_batch()

    assert outcomes_of(result) == ["stopped", "returned"]
    assert job_of(result).attempts == 1


def test_nothing_is_claimed_that_would_wait_for_a_task(tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    for _ in range(100):
        tasks.returns.enqueue()
    tasks.waits.enqueue(str(mark), str(go))
    for _ in range(20):
        tasks.returns.enqueue()
    with running_worker(*FLAGS) as worker:
        waits_for(mark)
        assert Job.objects.filter(status=JobStatus.RUNNING).count() == 1
        worker.signal(signal.SIGTERM)
        go.touch()
        assert worker.ends() == 0

    assert Job.objects.filter(status=JobStatus.READY).count() == 20


def test_lease_outlasts_a_long_task() -> None:
    """There is no heartbeat while a task runs."""
    with running_worker(*FLAGS, options={"LEASE_SECONDS": 5}):
        worker = Worker.objects.get()

    assert (worker.lease_expires_at - worker.started_at).total_seconds() >= 3_590


def test_signals_are_sent_in_the_worker_the_last_when_all_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAYFLY_TEST_HEARD", str(tmp_path / "heard"))
    results = [signal_task(name).enqueue() for name in ("returns", "raises")]

    run_batch()

    heard = [json.loads(line) for line in (tmp_path / "heard").read_text().splitlines()]
    told = [(each["id"], each["signal"], each["row"], each["outcomes"]) for each in heard]
    good, bad = (result.id for result in results)
    assert told == [
        (good, "started", "RUNNING", []),
        (good, "finished", "SUCCESSFUL", ["returned"]),
        (bad, "started", "RUNNING", []),
        (bad, "finished", "FAILED", ["raised"]),
    ]
    assert len({each["pid"] for each in heard}) == 1


IN_MEMORY = """
    import django
    from django.conf import settings
    from django.core.management import call_command

    name = "file:dayfly?mode=memory&cache=shared"
    settings.configure(
        SECRET_KEY="tests",
        USE_TZ=True,
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "dayfly"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": name}},
        TASKS={"default": {"BACKEND": "dayfly.backend.DatabaseBackend", "QUEUES": []}},
        SILENCED_SYSTEM_CHECKS=["dayfly.W002"],
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from tests.lifecycle import tasks

    tasks.counts_in_the_database.enqueue("seen")
    results = [tasks.uses_the_database.enqueue(), tasks.raises.enqueue()]
    call_command("runworker", "--batch", "--launcher=inline")
    for result in results:
        result.refresh()
        print(result.status, result.status == "SUCCESSFUL" and result.return_value)
"""


def test_database_in_memory_is_shared_with_tasks() -> None:
    """As in the tests of a project."""
    out = run_script(IN_MEMORY)

    assert out.splitlines()[-2:] == ["SUCCESSFUL 1", "FAILED False"]


INTERRUPTED = """
    import sys
    import django

    django.setup()
    from dayfly.management.workercommand import Worker
    from dayfly.conf import settings_for
    from dayfly.worker.options import WorkerOptions

    worker = Worker(WorkerOptions(settings=settings_for("default"), launcher="inline"))
    try:
        worker.run(handle_signals=False)
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_interrupt_reaches_a_host_that_handles_signals_itself() -> None:
    result = tasks.interrupts_itself.enqueue()

    out = run_script(INTERRUPTED, **worker_environment(DJANGO_SETTINGS_MODULE=SETTINGS))

    assert out == "interrupted\n"
    assert (job_of(result).status, outcomes_of(result)) == (JobStatus.READY, ["stopped"])
    assert Worker.objects.get().stopped_at is not None
