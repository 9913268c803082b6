"""Limits of a worker's options, from settings through a child to rows and signals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dayfly.models import Job, JobStatus, Run, Worker
from tests.lifecycle import tasks
from tests.lifecycle.test_signals import heard, signal_task
from tests.workers import job_of, run_worker, runs_of

# Also what makes pytest-django create the database.
pytestmark = pytest.mark.django_db

OPTIONS = {
    "SOFT_TIMEOUT_SECONDS": 3,
    "TIMEOUT_SECONDS": 60,
    "MEMORY_LIMIT_BYTES": 150_000_000,
    "MEMORY_BUDGET_BYTES": 1_000_000_000,
}
SOFT = "dayfly.executor.errors.SoftTimeLimitExceeded"


@pytest.fixture(scope="module")
def results(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """One worker runs them all, side by side."""
    path = tmp_path_factory.mktemp("signals") / "heard"
    names = (
        "cleans_up_in_time", "sleeps", "sleeps_in_a_coroutine", "holds_too_much", "takes_all_at_once",
    )  # fmt: skip
    with django_db_blocker.unblock():
        try:
            found: dict[str, Any] = {name: getattr(tasks, name).enqueue() for name in names}
            found["with signals"] = signal_task("waits").enqueue(str(path.parent / "mark"))
            run_worker("--batch", "--concurrency=6", options=OPTIONS, DAYFLY_TEST_HEARD=str(path))
            yield {"heard": path, **found}
        finally:
            for model in (Run, Job, Worker):
                model.objects.all().delete()


def test_task_that_cleans_up_at_its_soft_limit_is_successful(results: dict[str, Any]) -> None:
    result = results["cleans_up_in_time"]

    result.refresh()
    assert result.return_value == "cleaned up"
    assert runs_of(result)[0].outcome == "returned"


@pytest.mark.parametrize(
    ("name", "outcome", "class_path", "words"),
    [
        ("sleeps", "timed_out", SOFT, "soft time limit of 3 s"),
        ("sleeps_in_a_coroutine", "timed_out", SOFT, "soft time limit of 3 s"),
        (
            "holds_too_much",
            "over_memory",
            "dayfly.exceptions.OverMemory",
            "memory limit of 150.0 MB",
        ),
        ("takes_all_at_once", "over_memory", "builtins.MemoryError", "was refused more memory"),
    ],
)
def test_task_past_a_limit_fails_once_with_the_reason(
    results: dict[str, Any], name: str, outcome: str, class_path: str, words: str
) -> None:
    result = results[name]

    (run,) = runs_of(result)
    assert (run.outcome, run.exception_class_path) == (outcome, class_path)
    assert words in run.message
    assert f"tests.lifecycle.tasks.{name}" in run.message
    assert (job_of(result).status, job_of(result).attempts) == (JobStatus.FAILED, 1)
    result.refresh()
    (error,) = result.errors
    assert error.exception_class_path == class_path


def test_task_finished_is_sent_once_for_a_task_past_its_soft_limit(results: dict[str, Any]) -> None:
    """By its own child, which lives: not by another in its stead as well."""
    started, finished = heard(results["heard"])

    assert (started["signal"], finished["signal"]) == ("started", "finished")
    assert started["pid"] == finished["pid"]
    assert finished["outcomes"] == ["timed_out"]
    assert finished["errors"] == [SOFT]
