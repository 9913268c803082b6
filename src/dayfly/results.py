"""
From rows to the results of Django Tasks.

Built before apps are ready, as the backend is: models are imported where they are used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from dayfly.compat import Task, TaskError, TaskResult, TaskResultStatus

if TYPE_CHECKING:
    from dayfly.models import Job, Run

#: What the errors of a result name for a run that ended without an exception.
ENDINGS = {
    "exited": "dayfly.exceptions.ChildExited",
    "killed": "dayfly.exceptions.ChildKilled",
    "timed_out": "dayfly.exceptions.TimedOut",
    "over_memory": "dayfly.exceptions.OverMemory",
    "stopped": "dayfly.exceptions.WorkerStopped",
    "cancelled": "dayfly.exceptions.Cancelled",
    "lost": "dayfly.exceptions.WorkerLost",
}


def of_job(task: Task[..., Any], job: Job, runs: Iterable[Run]) -> TaskResult[..., Any]:
    """Build the result of a job of *task* from its row and those of its runs, in order."""
    runs = list(runs)
    worker_ids = [run.worker_name for run in runs if run.outcome != "stopped"]
    if job.status == "RUNNING" and job.worker is not None:
        worker_ids.append(job.worker.name)
    arguments = json.loads(job.arguments)
    status = "READY" if job.status == "SCHEDULED" else job.status
    result: TaskResult[..., Any] = TaskResult(
        task=as_enqueued(
            task,
            priority=job.priority,
            queue_name=job.queue_name,
            run_after=job.run_after,
            backend=job.backend_name,
        ),
        id=str(job.id),
        status=TaskResultStatus(status),
        enqueued_at=job.enqueued_at,
        started_at=job.started_at,
        last_attempted_at=job.last_attempted_at,
        finished_at=job.finished_at,
        args=arguments["args"],
        kwargs=arguments["kwargs"],
        backend=job.backend_name,
        errors=[_error(run) for run in runs if run.outcome not in ("returned", "stopped")],
        worker_ids=worker_ids,
    )
    if job.return_value is not None:
        object.__setattr__(result, "_return_value", json.loads(job.return_value))
    return result


def of_new_job(task: Task[..., Any], job: Job, arguments: dict[str, Any]) -> TaskResult[..., Any]:
    """Give the result of a job that was just inserted."""
    return TaskResult(
        task=task,
        id=str(job.id),
        status=TaskResultStatus.READY,
        enqueued_at=job.enqueued_at,
        started_at=None,
        last_attempted_at=None,
        finished_at=None,
        args=arguments["args"],
        kwargs=arguments["kwargs"],
        backend=job.backend_name,
        errors=[],
        worker_ids=[],
    )


def runs_of(job: Job) -> list[Run]:
    """Read the runs of a job. One that was never claimed has none."""
    if not job.epoch:
        return []
    # "job" too: Django before 6.1 fetches it for each run to set the way back.
    columns = ("job", "outcome", "message", "exception_class_path", "traceback", "worker_name")
    return list(job.runs.order_by("epoch").only(*columns))


def as_enqueued(task: Task[..., Any], **attributes: Any) -> Task[..., Any]:
    """
    Give *task* with the attributes that a row has for it.

    Not by `using`, which holds them against today's settings: a job of a queue that left
    QUEUES is to be run, and its result to be read.
    """
    enqueued = object.__new__(type(task))
    for field in fields(task):
        value = attributes.get(field.name, getattr(task, field.name))
        object.__setattr__(enqueued, field.name, value)  # a frozen dataclass
    return enqueued


def _error(run: Run) -> TaskError:
    """Say how a run ended that did not return."""
    path = run.exception_class_path or ENDINGS.get(run.outcome, "dayfly.exceptions.DayflyError")
    return TaskError(exception_class_path=path, traceback=run.traceback or run.message)
