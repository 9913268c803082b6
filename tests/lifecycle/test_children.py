"""Which child runs a task, and what it inherits from its worker and from the task before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from django.db import transaction

from dayfly.models import Run
from tests.helpers import ROOT, children_of_worker, eventually, open_fds
from tests.lifecycle import tasks
from tests.workers import (
    SETTINGS,
    finished,
    outcomes_of,
    run_worker,
    running_worker,
    runs_of,
    waits_for,
    worker_environment,
)

pytestmark = pytest.mark.django_db(transaction=True)


def enqueue(count: int) -> None:
    with transaction.atomic():
        for _ in range(count):
            tasks.tells_pid.enqueue()


def runs_in_order() -> list[tuple[int, int]]:
    """Return child pid and index of all runs, in the order in which they ran."""
    return list(Run.objects.order_by("started_at").values_list("child_pid", "child_index"))


def tasks_by_child() -> list[int]:
    """Return how many tasks each child served; they were numbered from 1, without gaps."""
    indexes: dict[int, list[int]] = {}
    for pid, index in runs_in_order():
        indexes.setdefault(pid, []).append(index)
    for found in indexes.values():
        assert found == list(range(1, len(found) + 1))
    return [len(found) for found in indexes.values()]


def test_child_that_runs_the_first_task_was_forked_before_it_was_enqueued() -> None:
    with running_worker("--concurrency=1") as worker:
        standby = eventually(lambda: children_of_worker(worker.pid))
        result = tasks.tells_pid.enqueue()
        finished(result)

    result.refresh()
    assert {result.return_value} == standby
    assert runs_of(result)[0].fork_seconds > 0


def test_without_standby_no_child_is_forked_ahead() -> None:
    with running_worker("--concurrency=1", "--standby=0") as worker:
        worker.says("Heartbeat")
        assert children_of_worker(worker.pid) == set()
        result = tasks.tells_pid.enqueue()
        finished(result)

    assert runs_of(result)[0].outcome == "returned"


def test_each_task_has_a_child_of_its_own() -> None:
    enqueue(6)

    run_worker("--batch", "--concurrency=2")

    runs = runs_in_order()
    assert len({pid for pid, _ in runs}) == 6
    assert {index for _, index in runs} == {1}


def test_child_serves_as_many_tasks_as_the_flag_says() -> None:
    enqueue(8)

    run_worker("--batch", "--concurrency=1", "--max-tasks-per-child=3")

    served = tasks_by_child()
    assert max(served) == 3
    assert sum(served) == 8


def test_jitter_lets_children_serve_differently_many() -> None:
    enqueue(60)

    run_worker(
        "--batch", "--concurrency=1", "--max-tasks-per-child=1", "--max-tasks-per-child-jitter=9"
    )

    served = tasks_by_child()
    assert max(served) <= 10
    assert len(set(served)) > 1


def test_policy_of_the_project_decides() -> None:
    options = {"RECYCLE_POLICY": "tests.lifecycle.policies.InPairs"}
    for text in ("", "", "", "enough", "much", "", "") * 3:
        tasks.prints_quietly.enqueue(text)

    run_worker("--batch", "--concurrency=1", options=options)

    assert max(tasks_by_child()) == 2
    for run in Run.objects.exclude(output=""):
        assert not Run.objects.filter(child_pid=run.child_pid, started_at__gt=run.started_at)


def test_max_tasks_ends_the_worker() -> None:
    enqueue(5)

    log = run_worker("--max-tasks=3", "--concurrency=2", "--interval=30")

    assert Run.objects.count() == 3
    assert "Run maximum tasks (3)" in log


def test_batch_of_an_empty_queue_ends_at_once() -> None:
    log = run_worker("--batch", "--interval=30", within=10)

    assert "No more tasks to run" in log
    assert Run.objects.count() == 0


def test_other_name_of_the_command_runs_the_same_worker() -> None:
    enqueue(1)

    log = run_worker("--batch", command=("-m", "django", "dayfly", "worker"))

    assert "No more tasks to run" in log
    assert Run.objects.get().outcome == "returned"


def test_batch_waits_for_what_still_runs(tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    result = tasks.waits.enqueue(str(mark), str(go))
    with running_worker("--batch", "--interval=30", is_ready=False) as worker:
        waits_for(mark)
        assert worker.process.poll() is None
        go.touch()
        assert worker.ends() == 0

    assert runs_of(result)[0].outcome == "returned"


def test_options_stand_in_for_flags() -> None:
    enqueue(4)
    options = {"CONCURRENCY": 1, "MAX_TASKS_PER_CHILD": 2, "STANDBY": 0, "INTERVAL": 0.1}

    log = run_worker("--batch", options=options)

    assert "concurrency=1" in log
    assert max(tasks_by_child()) == 2


def test_worker_has_its_title_where_the_first_variable_is_replaced() -> None:
    variables = {
        "PWD": "/elsewhere",
        **{k: v for k, v in worker_environment().items() if k != "PWD"},
    }
    command = [sys.executable, "-m", "django", "runworker", "--worker-id=me", "--launcher=inline"]
    variables["DJANGO_SETTINGS_MODULE"] = SETTINGS
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: title_of(process.pid) == "dayfly: worker me queues=*")
        finally:
            process.terminate()


def test_process_titles_say_who_is_who(tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    result = tasks.waits.enqueue(str(mark), str(go))
    with running_worker("--worker-id=me", "--concurrency=1") as worker:
        child = int(waits_for(mark))

        assert title_of(worker.pid) == "dayfly: worker me queues=*"
        assert title_of(child) == f"dayfly: child tests.lifecycle.tasks.waits {result.id}.1"
        assert str(mark) not in title_of(child)
        go.touch()
        finished(result)


def title_of(pid: int) -> str:
    return " ".join(psutil.Process(pid).cmdline()).strip()


def test_child_has_no_descriptor_of_its_parent(tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    result = tasks.waits.enqueue(str(mark), str(go))
    with running_worker("--concurrency=1") as worker:
        child = int(waits_for(mark))
        theirs, ours = descriptors(child), descriptors(worker.pid)
        go.touch()
        finished(result)

    files = {each for each in theirs if each.startswith("/") and "libffi" not in each}
    assert files == {os.devnull}
    sockets = {each for each in theirs if each.startswith("socket:")}
    assert len(sockets) == 1
    assert not sockets & ours
    # Its output: the parent has the other end, which goes by the same name.
    assert len({each for each in theirs if each.startswith("pipe:")}) == 1
    assert not {each for each in theirs if each.startswith("anon_inode:")}


def descriptors(pid: int) -> set[str]:
    """Return what the descriptors of a process refer to."""
    return set(open_fds(pid).values())


def test_what_a_task_changed_is_gone_with_its_child() -> None:
    result = [tasks.hoards.enqueue() for _ in range(3)]

    run_worker("--batch", "--concurrency=1")

    for each in result:
        each.refresh()
    assert [each.return_value for each in result] == [1, 1, 1]


@pytest.mark.parametrize(
    ("launcher", "closed"),
    [("fork", "<&- >&-"), ("spawn", "<&- >&-"), ("template", "<&-"), ("template", ">&-")],
)
def test_worker_without_standard_streams_runs_tasks(launcher: str, closed: str) -> None:
    """Daemons are started so. What is opened next gets the numbers of the streams."""
    results = [tasks.prints.enqueue(str(number)) for number in range(3)]
    command = [sys.executable, "-m", "django", "runworker", "--batch", f"--launcher={launcher}"]

    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command, "--concurrency=1"],
        cwd=ROOT,
        env=worker_environment(DJANGO_SETTINGS_MODULE=SETTINGS),
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr.decode()
    assert [outcomes_of(each) for each in results] == [["returned"]] * 3
    assert [runs_of(each)[0].output for each in results] == ["0\n", "1\n", "2\n"]
