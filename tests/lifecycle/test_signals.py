"""task_started and task_finished: where they are sent, when, and by whom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from tests.workers import altered, job_of, run_worker, running_worker, runs_of, waits_for

pytestmark = pytest.mark.django_db(transaction=True)

BACKEND = "dayfly.backend.DatabaseBackend"


@pytest.fixture
def heard_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAYFLY_TEST_HEARD", str(tmp_path / "heard"))
    return tmp_path / "heard"


def signal_task(name: str) -> Any:
    """Return a task without its module's receivers being heard in this process."""
    from dayfly.compat import task_finished, task_started
    from tests.lifecycle import signal_tasks

    task_started.disconnect(signal_tasks.on_started)
    task_finished.disconnect(signal_tasks.on_finished)
    return getattr(signal_tasks, name)


def heard(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_signals_are_sent_in_the_child(heard_path: Path) -> None:
    result = signal_task("returns").enqueue()

    with running_worker("--batch", is_ready=False) as worker:
        assert worker.ends() == 0

    started, finished = heard(heard_path)
    (run,) = runs_of(result)
    assert (started["signal"], finished["signal"]) == ("started", "finished")
    assert started["pid"] == finished["pid"] == run.child_pid
    assert started["parent"] == finished["parent"]
    assert worker.pid not in (started["parent"], started["pid"])
    assert started["sender"] == finished["sender"] == BACKEND
    assert started["id"] == finished["id"] == result.id
    assert (started["status"], started["row"], started["outcomes"]) == ("RUNNING", "RUNNING", [])


@pytest.mark.parametrize(
    ("name", "status", "outcome", "errors"),
    [
        ("returns", "SUCCESSFUL", "returned", []),
        ("raises", "FAILED", "raised", ["builtins.ValueError"]),
    ],
)
def test_task_finished_sees_the_committed_outcome(
    heard_path: Path, name: str, status: str, outcome: str, errors: list[str]
) -> None:
    signal_task(name).enqueue()

    run_worker("--batch")

    finished = heard(heard_path)[-1]
    assert finished["signal"] == "finished"
    assert (finished["status"], finished["row"]) == (status, status)
    assert finished["outcomes"] == [outcome]
    assert finished["errors"] == errors


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite adds no constraint to a table")
def test_task_finished_tells_what_was_recorded_and_not_what_the_child_believes(
    heard_path: Path,
) -> None:
    result = signal_task("returns").enqueue()

    with altered(
        "ALTER TABLE dayfly_job ADD CONSTRAINT none CHECK (CHAR_LENGTH(return_value) < 1)",
        "ALTER TABLE dayfly_job DROP CONSTRAINT none",
    ):
        run_worker("--batch")

    started, finished = heard(heard_path)
    assert (finished["signal"], finished["id"]) == ("finished", result.id)
    assert (finished["status"], finished["row"]) == ("FAILED", "FAILED")
    assert finished["errors"] == ["dayfly.exceptions.ResultRefused"]
    assert finished["pid"] != started["pid"]


def test_task_finished_of_a_killed_child_is_sent_by_another(heard_path: Path) -> None:
    result = signal_task("dies").enqueue()

    with running_worker("--batch", is_ready=False) as worker:
        assert worker.ends() == 0

    started, finished = heard(heard_path)
    (run,) = runs_of(result)
    assert (started["signal"], finished["signal"]) == ("started", "finished")
    assert started["pid"] == run.child_pid
    assert finished["pid"] not in (run.child_pid, worker.pid)
    assert finished["parent"] != worker.pid  # the template forked it
    assert finished["sender"] == BACKEND
    assert (finished["status"], finished["row"]) == ("FAILED", "FAILED")
    assert finished["errors"] == ["dayfly.exceptions.ChildKilled"]


def test_task_finished_is_sent_once_for_each_task_of_a_child(heard_path: Path) -> None:
    results = [signal_task("returns").enqueue() for _ in range(5)]

    run_worker("--batch", "--max-tasks-per-child=0", "--concurrency=1")

    events = heard(heard_path)
    for result in results:
        started, finished = [event for event in events if event["id"] == result.id]
        assert (started["signal"], finished["signal"]) == ("started", "finished")
        assert started["pid"] == finished["pid"]
    assert len(events) == 10


def test_task_that_is_stopped_has_not_finished(heard_path: Path, tmp_path: Path) -> None:
    """It runs again: only then does it come to its end."""
    mark = tmp_path / "mark"
    result = signal_task("waits").enqueue(str(mark))
    with running_worker("--grace=0") as worker:
        waits_for(mark)
        assert worker.stops() == 0

    assert job_of(result).status == "READY"
    assert [event["signal"] for event in heard(heard_path)] == ["started"]
