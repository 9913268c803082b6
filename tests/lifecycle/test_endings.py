"""Every ending that a task can have, from the queue through a child to rows and TaskResult."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from dayfly import queue
from dayfly.compat import TaskResultStatus
from dayfly.exceptions import TaskNotFound
from dayfly.models import Job, JobStatus, Run, Worker
from tests.lifecycle import tasks
from tests.workers import run_worker

# Also what makes pytest-django create the database.
pytestmark = pytest.mark.django_db

TASKS = "tests.lifecycle.tasks"
FORBIDDEN = "tests.lifecycle.forbidden.task"
HARD_TEXT = "a\ud800b\0c\N{SNOWMAN}\N{PILE OF POO}"
OPTIONS = {
    "TIMEOUT_SECONDS": 6,
    "KILL_GRACE_SECONDS": 0.5,
    "MAX_RESULT_BYTES": 10_000,
    "MAX_OUTPUT_BYTES": 4_000,
    "ALLOWED_TASKS": [f"{TASKS}.*", "tests.lifecycle.nowhere.*"],
    "MEMORY_DETAIL": "full",
}


@dataclass(frozen=True)
class Ending:
    """What is known afterwards of one job."""

    job: Job
    runs: list[Run]
    #: None where the task cannot be imported.
    result: Any

    @property
    def run(self) -> Run:
        (run,) = self.runs
        return run


def enqueue_all(marks: Path) -> dict[str, UUID]:
    """Enqueue one job for each ending; return their ids by name."""
    results = {
        "returns": tasks.returns.enqueue({"a": [1, None, "é"]}),
        "async": tasks.adds_later.enqueue(1, b=2),
        "context": tasks.tells_context.enqueue("word"),
        "database": tasks.uses_the_database.enqueue(),
        "others": tasks.starts_others.enqueue(),
        "thread": tasks.leaves_a_thread.enqueue(),
        "megabytes": tasks.prints_megabytes.enqueue(50),
        "copy": tasks.forks_and_lets_the_copy_return.enqueue(),
        "raises": tasks.raises.enqueue("so"),
        "sys.exit": tasks.sys_exits.enqueue(3),
        "os._exit": tasks.os_exits.enqueue(5),
        "segfault": tasks.segfaults.enqueue(),
        "SIGKILL": tasks.kills_itself.enqueue(),
        "descriptors": tasks.closes_its_descriptors.enqueue(),
        "set": tasks.returns_a_set.enqueue(),
        "NaN": tasks.returns_nan.enqueue(),
        "bytes": tasks.returns_bytes.enqueue(),
        "large": tasks.returns_much.enqueue(20_000),
        "prints and raises": tasks.prints_and_raises.enqueue("said before"),
        "text argument": tasks.returns.enqueue(HARD_TEXT),
        **{
            f"text {how}": tasks.says_text_of_every_kind.enqueue(how)
            for how in ("result", "exception", "output")
        },
        "time limit": tasks.waits.enqueue(str(marks / "waits")),
    }
    ids = {name: UUID(result.id) for name, result in results.items()}
    for name, path in (
        ("no module", "tests.lifecycle.nowhere.task"),
        ("no name", f"{TASKS}.nothing"),
        ("no task", f"{TASKS}.not_a_task"),
        ("not allowed", FORBIDDEN),
    ):
        ids[name] = add_row(path)
    return ids


def add_row(path: str) -> UUID:
    """Write a row as somebody might who does not ask the backend."""
    new = queue.NewJob(
        backend_name="default", queue_name="default", priority=0, task_path=path,
        arguments='{"args": [], "kwargs": {}}', run_after=None,
    )  # fmt: skip
    return queue.add(new, using="default").id


def ending_of(job_id: UUID) -> Ending:
    job = Job.objects.select_related("worker").get(id=job_id)
    result = None
    if job.task_path != FORBIDDEN:  # a result has its Task, so asking for it imports the module
        with contextlib.suppress(TaskNotFound):
            result = tasks.returns.get_backend().get_result(str(job_id))
    return Ending(job, list(job.runs.order_by("epoch")), result)


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module")
def log_and_endings(
    django_db_setup: None, django_db_blocker: Any, marks: Path
) -> Iterator[tuple[str, dict[str, Ending]]]:
    """One worker runs them all, side by side: what one task does to itself harms no other."""
    with django_db_blocker.unblock():
        try:
            ids = enqueue_all(marks)
            log = run_worker(
                "--batch", "--concurrency=3", options=OPTIONS, DAYFLY_TEST_MARKS=str(marks)
            )
            yield log, {name: ending_of(job_id) for name, job_id in ids.items()}
        finally:
            for model in (Run, Job, Worker):
                model.objects.all().delete()


@pytest.fixture
def endings(log_and_endings: tuple[str, dict[str, Ending]]) -> dict[str, Ending]:
    return log_and_endings[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("returns", {"a": [1, None, "é"]}),
        ("async", 3),
        ("database", 0),
        ("others", ["thread", 3, "process"]),
        ("thread", "left"),
        ("megabytes", 50),
        ("copy", "the parent of the copy"),
        ("text result", HARD_TEXT),
        ("text argument", HARD_TEXT),
        ("text output", HARD_TEXT),
    ],
)
def test_task_that_returns_is_successful(
    endings: dict[str, Ending], name: str, value: object
) -> None:
    ending = endings[name]

    assert ending.job.status == JobStatus.SUCCESSFUL
    assert (ending.run.outcome, ending.run.message) == ("returned", "")
    assert (ending.run.exit_code, ending.run.signal) == (None, None)
    assert ending.result.status == TaskResultStatus.SUCCESSFUL
    assert ending.result.return_value == value
    assert ending.result.errors == []


@pytest.mark.parametrize(
    ("name", "outcome", "exit_code", "number", "class_path", "words"),
    [
        ("raises", "raised", None, None, "builtins.ValueError", "ValueError: so"),
        ("sys.exit", "raised", None, None, "builtins.SystemExit", "SystemExit: 3"),
        ("os._exit", "exited", 5, None, "dayfly.exceptions.ChildExited", "exit code 5"),
        ("segfault", "killed", None, signal.SIGSEGV, "dayfly.exceptions.ChildKilled", "SIGSEGV"),
        ("SIGKILL", "killed", None, signal.SIGKILL, "dayfly.exceptions.ChildKilled", "SIGKILL"),
        ("time limit", "timed_out", None, signal.SIGTERM, "dayfly.exceptions.TimedOut", "6 s"),
        ("set", "raised", None, None, "dayfly.exceptions.ResultNotJSON", "a set, is not JSON"),
        ("NaN", "raised", None, None, "dayfly.exceptions.ResultNotJSON", "a float, is not JSON"),
        ("bytes", "raised", None, None, "dayfly.exceptions.ResultNotJSON", "a bytes, is not"),
        ("large", "raised", None, None, "dayfly.exceptions.ResultTooLarge", "is 10000"),
        ("no module", "raised", None, None, "dayfly.exceptions.TaskNotFound", "There is no task"),
        ("no name", "raised", None, None, "dayfly.exceptions.TaskNotFound", "There is no task"),
        ("no task", "raised", None, None, "dayfly.exceptions.TaskNotFound", "is no task"),
        ("not allowed", "raised", None, None, "dayfly.exceptions.TaskNotAllowed", "ALLOWED_TASKS"),
    ],
)
def test_task_that_ends_badly_fails_with_the_reason(
    endings: dict[str, Ending],
    name: str,
    outcome: str,
    exit_code: int | None,
    number: int | None,
    class_path: str,
    words: str,
) -> None:
    ending = endings[name]

    assert ending.job.status == JobStatus.FAILED
    assert ending.run.outcome == outcome
    assert (ending.run.exit_code, ending.run.signal) == (exit_code, number)
    assert ending.run.exception_class_path == class_path
    assert words in ending.run.message
    if ending.result is not None:
        assert ending.result.status == TaskResultStatus.FAILED
        (error,) = ending.result.errors
        assert error.exception_class_path == class_path
        assert words in error.traceback or outcome == "raised"


def test_child_that_closed_its_descriptors_could_not_report(endings: dict[str, Ending]) -> None:
    ending = endings["descriptors"]

    assert ending.job.status == JobStatus.FAILED
    assert ending.run.outcome == "exited"
    assert "descriptors" in ending.run.message


def test_every_run_has_a_record(endings: dict[str, Ending]) -> None:
    for name, ending in endings.items():
        run, job = ending.run, ending.job
        assert (run.attempt, job.attempts, job.epoch) == (1, 1, 1), name
        assert run.worker_id == job.worker_id, name
        assert run.task_path == job.task_path, name
        assert run.child_pid, name
        assert run.child_index == 1, name
        assert job.enqueued_at == run.enqueued_at, name
        assert run.enqueued_at <= run.claimed_at <= run.started_at <= run.finished_at, name
        assert run.queue_wait_seconds >= 0, name
        assert run.run_seconds >= 0, name
        assert run.fork_seconds > 0, name
        assert run.child_peak_rss_bytes > 1_000_000, name
        assert run.parent_rss_before_fork_bytes > 1_000_000, name
        assert run.payload_bytes == len(job.arguments), name
        assert run.cpu_user_seconds is not None, name


def test_memory_of_a_child_that_reported_is_known(endings: dict[str, Ending]) -> None:
    run = endings["raises"].run

    assert 0 < run.child_uss_start_bytes <= run.child_pss_start_bytes <= run.child_rss_start_bytes
    assert 0 < run.child_uss_end_bytes <= run.child_pss_end_bytes <= run.child_rss_end_bytes
    assert run.child_peak_rss_bytes >= run.child_rss_end_bytes
    assert run.parent_rss_after_join_bytes > 1_000_000
    assert run.new_modules > 0


def test_what_is_unknown_of_a_child_that_died_is_null(endings: dict[str, Ending]) -> None:
    run = endings["SIGKILL"].run

    assert run.child_uss_end_bytes is None
    assert run.result_bytes is None
    assert run.new_modules is None


def test_context_tells_of_the_running_job(endings: dict[str, Ending]) -> None:
    ending = endings["context"]

    assert ending.result.return_value == [1, str(ending.job.id), "default", "RUNNING", "word"]


def test_output_is_kept_also_of_a_task_that_raised(endings: dict[str, Ending]) -> None:
    assert endings["prints and raises"].run.output == "said before\n"


def test_tail_of_much_output_is_kept(endings: dict[str, Ending]) -> None:
    run = endings["megabytes"].run

    assert run.output_bytes == 50 * 1000 * 1024 + len("the end\n")
    assert len(run.output) == 4_000
    assert run.output.endswith("x\nthe end\n")


def test_text_that_databases_refuse_is_escaped(endings: dict[str, Ending]) -> None:
    raised, printed = endings["text exception"].run, endings["text output"].run

    escaped = "a\\ud800b\\x00c\N{SNOWMAN}\N{PILE OF POO}"
    assert raised.message == f"ValueError: {escaped}"
    assert escaped in raised.traceback
    assert printed.output == "a\\xed\\xa0\\x80b\\x00c\N{SNOWMAN}\N{PILE OF POO}\\xff"


def test_traceback_shows_the_line_of_the_task(endings: dict[str, Ending]) -> None:
    (error,) = endings["raises"].result.errors

    assert "raise ValueError(text)" in error.traceback
    assert error.exception_class is ValueError


def test_forbidden_module_was_not_imported(endings: dict[str, Ending], marks: Path) -> None:
    assert endings["not allowed"].run.outcome == "raised"
    assert not (marks / "forbidden-was-imported").exists()


def test_forbidden_module_would_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof above rests on this."""
    monkeypatch.setenv("DAYFLY_TEST_MARKS", str(tmp_path))
    import importlib

    importlib.import_module("tests.lifecycle.forbidden")

    assert (tmp_path / "forbidden-was-imported").exists()


def test_log_has_a_line_for_each_ending(log_and_endings: tuple[str, dict[str, Ending]]) -> None:
    log, endings = log_and_endings

    for name, ending in endings.items():
        lines = [line for line in log.splitlines() if f"id={ending.job.id}" in line]
        word = "successful" if ending.job.status == JobStatus.SUCCESSFUL else ending.run.outcome
        assert len(lines) == 1, name
        assert f"Task {ending.job.task_path}: RSS=" in lines[0], name
        assert word in lines[0], name


def test_time_limit_lasted_as_long_as_it_says(endings: dict[str, Ending]) -> None:
    assert 6 <= endings["time limit"].run.run_seconds < 20  # the task would have waited for 60


def test_result_names_the_worker(endings: dict[str, Ending]) -> None:
    ending = endings["returns"]

    assert ending.result.worker_ids == [ending.run.worker_name]
    assert ending.result.attempts == 1
    assert ending.result.started_at == ending.run.started_at
    assert ending.result.finished_at == ending.job.finished_at
