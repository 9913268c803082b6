"""
Child side: perform one job. Import its task, call it, make its value JSON, tell the world.

The executor calls `perform` with an Order; what it returns or raises becomes the
report. `task_finished` is sent when the parent has written the outcome, not before.
"""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any, NamedTuple

from django.db import close_old_connections, reset_queries
from django.dispatch import Signal
from django.urls import set_urlconf
from django.utils import timezone, translation

from dayfly.compat import (
    TaskContext,
    TaskError,
    TaskResult,
    TaskResultStatus,
    normalize_json,
    task_backends,
    task_finished,
    task_started,
)
from dayfly.exceptions import ResultNotJSON, ResultTooLarge, TaskNotFound
from dayfly.executor.child import describe, when_recorded
from dayfly.results import as_enqueued
from dayfly.worker.openends import end_transactions, open_transactions
from dayfly.worker.order import Order, moment


class Signals(NamedTuple):
    """What the world hears of a task."""

    started: Signal
    finished: Signal


def perform(payload: bytes) -> bytes:
    """
    Perform the job in *payload*; return its value as JSON.

    Raises:
        TaskNotAllowed: its path is outside ALLOWED_TASKS.
        TaskNotFound: its path is no task of this backend, or cannot be imported.
        ResultNotJSON, ResultTooLarge: it returned something that cannot be stored.
        BaseException: whatever the task raised.
    """
    _forget_the_last_task()
    order, arguments = Order.decode(payload)
    backend: Any = task_backends[order.backend_name]
    task = _load_task(backend, order.task_path)
    result = running_result(order, arguments, task, backend)
    return run(result, backend, Signals(task_started, task_finished))


def run(result: Any, backend: Any, signals: Signals) -> bytes:
    """Call the task of *result*, and tell the world by *signals*; return its value as JSON. Raises what it raises."""
    sender = type(backend)
    already_open = open_transactions()
    try:
        signals.started.send(sender=sender, task_result=result)
        value = _call(result.task, result)
        text = _as_json(value, result.task.module_path, backend.settings.max_result_bytes)
    except BaseException as error:
        if _misses_an_app(error):
            error.add_note(_missing_app())
        when_recorded(partial(_announce_failure, result, sender, error, signals))
        raise
    finally:
        end_transactions(result.task.module_path, but=already_open)
    when_recorded(partial(_announce_success, result, sender, text, signals))
    return text.encode()


def announce(payload: bytes) -> bytes:
    """Send `task_finished` for a job whose own child can no longer do so."""
    backend_name, job_id = payload.decode().split("\n")
    backend = task_backends[backend_name]
    result = backend.get_result(job_id)
    task_finished.send(sender=type(backend), task_result=result)
    return b""


def _load_task(backend: Any, path: str) -> Any:
    """Import the task that a row names; see DatabaseBackend.load_task for what is refused."""
    try:
        task = backend.load_task(path)
    except TaskNotFound as error:
        if error.__cause__ is not None and _misses_an_app(error.__cause__):
            message = f"{error} {_missing_app()}"
            raise TaskNotFound(message) from error.__cause__
        raise
    if task.module_path != path:
        message = f"{path} is not run: the task there calls itself {task.module_path}."
        raise TaskNotFound(message)
    return task


def _misses_an_app(error: BaseException) -> bool:
    # Django says so with a RuntimeError when the class of a model is made.
    return isinstance(error, RuntimeError) and "INSTALLED_APPS" in str(error)


def _missing_app() -> str:
    return (
        "The worker's settings leave out an app that this task needs: add the app to"
        f" INSTALLED_APPS of {os.environ.get('DJANGO_SETTINGS_MODULE', 'the worker settings')}."
    )


def running_result(order: Order, arguments: dict[str, Any], task: Any, backend: Any) -> Any:
    if order.attempt > 1:
        # Earlier attempts have errors to show, and those are in the database.
        return backend.get_result(order.job_id)
    mine = (order.priority, order.queue_name, order.backend_name)
    if mine != (task.priority, task.queue_name, task.backend):
        task = as_enqueued(
            task, priority=order.priority, queue_name=order.queue_name, backend=order.backend_name
        )
    return TaskResult(
        task=task,
        id=order.job_id,
        status=TaskResultStatus.RUNNING,
        enqueued_at=moment(order.enqueued_at),
        started_at=moment(order.started_at),
        finished_at=None,
        last_attempted_at=moment(order.last_attempted_at),
        args=arguments["args"],
        kwargs=arguments["kwargs"],
        backend=order.backend_name,
        errors=[],
        worker_ids=[order.worker_name],
    )


def _call(task: Any, result: Any) -> Any:
    if task.takes_context:
        return task.call(TaskContext(task_result=result), *result.args, **result.kwargs)
    return task.call(*result.args, **result.kwargs)


def _as_json(value: Any, path: str, max_bytes: int) -> str:
    try:
        text = json.dumps(normalize_json(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        message = (
            f"What {path} returned, a {type(value).__qualname__}, is not JSON: {error}. "
            "Return text, numbers, booleans, None, lists and dicts of these."
        )
        raise ResultNotJSON(message) from error
    if len(text) > max_bytes:
        message = (
            f"What {path} returned is {len(text)} bytes of JSON; MAX_RESULT_BYTES is {max_bytes}. "
            "Store it in a file or a model and return its name."
        )
        raise ResultTooLarge(message)
    return text


def _announce_success(result: Any, sender: type, text: str, signals: Signals) -> None:
    _set(result, status=TaskResultStatus.SUCCESSFUL, finished_at=timezone.now())
    _set(result, _return_value=json.loads(text))
    signals.finished.send(sender=sender, task_result=result)


def _announce_failure(result: Any, sender: type, error: BaseException, signals: Signals) -> None:
    failure = describe(error)
    result.errors.append(
        TaskError(exception_class_path=failure.exception_class_path, traceback=failure.traceback)
    )
    _set(result, status=TaskResultStatus.FAILED, finished_at=timezone.now())
    try:
        # Receivers that report to error monitors look at sys.exc_info().
        raise error
    except BaseException:  # noqa: BLE001 - raised a line above, for the receivers
        signals.finished.send(sender=sender, task_result=result)


def _set(result: Any, **attributes: Any) -> None:
    for name, value in attributes.items():
        object.__setattr__(result, name, value)  # a frozen dataclass


_has_performed = False


def _forget_the_last_task() -> None:
    """Start like the first task of this child, as Django does between two requests."""
    global _has_performed
    if _has_performed:
        reset_queries()
        close_old_connections()
        translation.deactivate()
        timezone.deactivate()
        set_urlconf(None)
    _has_performed = True
