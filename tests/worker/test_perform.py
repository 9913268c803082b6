"""What a child does with a job, in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone, translation

from dayfly.backend import DatabaseBackend
from dayfly.compat import TaskResultStatus, task_backends, task_finished, task_started
from dayfly.exceptions import (
    ResultNotJSON,
    ResultTooLarge,
    TaskNotAllowed,
    TaskNotFound,
)
from dayfly.executor import child
from dayfly.models import Job
from dayfly.worker import inline
from dayfly.worker import perform as module
from dayfly.worker.order import Order
from dayfly.worker.perform import _load_task, announce, perform
from tests import calls, tasks
from tests.lifecycle import tasks as more_tasks
from tests.workers import run_worker

NOW = "2026-01-02T09:00:00+00:00"


@pytest.fixture(autouse=True)
def callbacks() -> Iterator[list[Any]]:
    """What waits for the record; a child would run it."""
    yield child._callbacks
    child._callbacks.clear()
    module._has_performed = False


@pytest.fixture
def heard() -> Iterator[list[tuple[str, str, type]]]:
    events: list[tuple[str, str, type]] = []

    def on_started(sender: type, task_result: Any, **kwargs: Any) -> None:
        events.append(("started", task_result.status, sender))

    def on_finished(sender: type, task_result: Any, **kwargs: Any) -> None:
        events.append(("finished", task_result.status, sender))

    task_started.connect(on_started)
    task_finished.connect(on_finished)
    yield events
    task_started.disconnect(on_started)
    task_finished.disconnect(on_finished)


def payload(path: str, *args: Any, attempt: int = 1, **kwargs: Any) -> bytes:
    order = Order(
        job_id="01890000-0000-7000-8000-000000000001",
        task_path=path,
        backend_name="default",
        queue_name="default",
        priority=3,
        run_after=None,
        attempt=attempt,
        enqueued_at=NOW,
        started_at=NOW,
        last_attempted_at=NOW,
        worker_name="me",
    )
    return order.encode(json.dumps({"args": args, "kwargs": kwargs}))


def test_value_is_returned_as_json() -> None:
    assert perform(payload("tests.tasks.add", 1, right=2)) == b"3"


def test_async_task_is_awaited() -> None:
    assert perform(payload("tests.lifecycle.tasks.adds_later", 1, 2)) == b"3"


def test_context_has_the_order() -> None:
    told = json.loads(perform(payload("tests.lifecycle.tasks.tells_context", "word")))

    assert told == [1, "01890000-0000-7000-8000-000000000001", "default", "RUNNING", "word"]


def test_task_finished_waits_for_the_record(heard: list[Any], callbacks: list[Any]) -> None:
    backend = type(task_backends["default"])
    perform(payload("tests.tasks.noop"))
    assert heard == [("started", TaskResultStatus.RUNNING, backend)]

    callbacks[0]()

    assert heard[1:] == [("finished", TaskResultStatus.SUCCESSFUL, backend)]


@pytest.mark.parametrize("perform_", [perform, inline.perform])
def test_exception_that_lets_nobody_set_an_attribute_passes_through(perform_: Any) -> None:
    with pytest.raises(calls.Sealed):
        perform_(payload("tests.tasks.fails_sealed"))


def test_exception_of_a_task_passes_through(heard: list[Any], callbacks: list[Any]) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        perform(payload("tests.tasks.fails"))

    callbacks[0]()
    assert [event[:2] for event in heard] == [("started", "RUNNING"), ("finished", "FAILED")]


@pytest.mark.parametrize("name", ["returns_a_set", "returns_nan", "returns_bytes"])
def test_value_that_is_not_json_is_refused(name: str) -> None:
    with pytest.raises(ResultNotJSON, match="is not JSON"):
        perform(payload(f"tests.lifecycle.tasks.{name}"))


def test_value_that_is_too_large_is_refused() -> None:
    limit = task_backends["default"].settings.max_result_bytes
    perform(payload("tests.lifecycle.tasks.returns_much", limit - 2))

    with pytest.raises(ResultTooLarge, match="MAX_RESULT_BYTES"):
        perform(payload("tests.lifecycle.tasks.returns_much", limit - 1))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("tests.nowhere.task", "has no attribute 'nowhere'"),
        ("tests.tasks.nothing", "has no attribute 'nothing'"),
        ("nodots", "There is no task nodots"),
        ("os.getpid", "is no task"),
        ("tests.lifecycle.tasks.task", "is no task"),
        ("tests.tasks.Holder", "is no task"),
    ],
)
def test_path_that_is_no_task_is_refused(path: str, words: str) -> None:
    with pytest.raises(TaskNotFound, match=words):
        _load_task(task_backends["default"], path)


def test_task_under_a_name_that_is_not_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(more_tasks, "alias", tasks.add, raising=False)

    with pytest.raises(TaskNotFound, match=r"calls itself tests\.tasks\.add"):
        _load_task(task_backends["default"], "tests.lifecycle.tasks.alias")


def backend_that_allows(*patterns: str) -> DatabaseBackend:
    return DatabaseBackend("default", {"OPTIONS": {"ALLOWED_TASKS": list(patterns)}})


@pytest.mark.parametrize(
    "pattern", ["tests.tasks.*", "tests.tasks.ad?", "*.add", "tests.tasks.add"]
)
def test_pattern_allows_a_task(pattern: str) -> None:
    assert _load_task(backend_that_allows("other.*", pattern), "tests.tasks.add") is tasks.add


@pytest.mark.parametrize("pattern", ["other", "tests.tasks", "TESTS.tasks.*", "tests.tasks.add.*"])
def test_pattern_does_not_allow_a_task(pattern: str) -> None:
    with pytest.raises(TaskNotAllowed, match="ALLOWED_TASKS"):
        _load_task(backend_that_allows(pattern), "tests.tasks.add")


def test_next_task_starts_without_what_the_last_one_set() -> None:
    perform(payload("tests.tasks.noop"))
    translation.activate("de")
    timezone.activate("Asia/Tokyo")

    perform(payload("tests.tasks.noop"))

    assert translation.get_language() == "en-us"
    assert timezone.get_current_timezone_name() != "Asia/Tokyo"


@pytest.mark.django_db(transaction=True)
def test_later_attempt_knows_the_errors_of_the_earlier() -> None:
    result = tasks.fails.enqueue()
    run_worker("--batch")
    Job.objects.update(status="RUNNING", attempts=2, finished_at=None)
    told: list[Any] = []

    def on_started(sender: type, task_result: Any, **kwargs: Any) -> None:
        told.extend(error.exception_class for error in task_result.errors)

    task_started.connect(on_started)
    order, _, arguments = payload("tests.tasks.fails", attempt=2).partition(b"\n")
    order = order.replace(b"01890000-0000-7000-8000-000000000001", result.id.encode())
    try:
        with pytest.raises(ValueError, match="on purpose"):
            perform(order + b"\n" + arguments)
    finally:
        task_started.disconnect(on_started)

    assert told == [ValueError]


@pytest.mark.django_db(transaction=True)
def test_announcement_sends_what_the_row_says(heard: list[Any]) -> None:
    result = tasks.fails.enqueue()
    run_worker("--batch")
    heard.clear()

    assert announce(f"default\n{result.id}".encode()) == b""

    assert heard == [("finished", TaskResultStatus.FAILED, type(task_backends["default"]))]
    assert connection.connection is not None
