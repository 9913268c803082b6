"""What goes into the queue's verbs and what comes out, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from dayfly.ids import uuid7
from dayfly.models import JobStatus, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """One call to be enqueued."""

    backend_name: str
    queue_name: str
    priority: int
    task_path: str
    #: JSON text {"args": [...], "kwargs": {...}}.
    arguments: str
    run_after: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which jobs a worker wants."""

    backend_name: str
    #: None is every queue.
    queues: tuple[str, ...] | None
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """Which finished jobs are to be deleted."""

    backend_name: str
    #: None is every queue.
    queues: tuple[str, ...] | None
    exclude: tuple[str, ...] = ()
    #: How long ago they must have ended; what failed may be kept for longer.
    min_age_days: float
    failed_min_age_days: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job that is now held by one worker, as it was when it was claimed."""

    job_id: UUID
    #: The fencing token: an outcome is accepted only with the epoch of the claim.
    epoch: int
    #: The number that the run of this claim will have, from 1.
    attempt: int
    task_path: str
    queue_name: str
    priority: int
    arguments: str
    run_after: datetime | None
    enqueued_at: datetime
    due_at: datetime
    claimed_at: datetime
    #: Of the first attempt; for that one, the moment of the claim.
    started_at: datetime
    times_lost: int


class NewRun(SimpleNamespace):
    """
    The columns of a run that is to be written, as attributes. What is not given is unknown.

    Not an instance of Run: making one takes as long as all the rest of a settlement.
    """

    def __init__(self, **columns: Any) -> None:
        super().__init__(**{**_UNKNOWN, "id": uuid7(), **columns})


_UNKNOWN = {
    column.attname: column.get_default()
    for column in Run._meta.concrete_fields
    if column.name != "id"
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What becomes of one claim."""

    job_id: UUID
    epoch: int
    #: SUCCESSFUL, FAILED, or READY (back to the queue, at once).
    status: JobStatus
    #: JSON text; None unless SUCCESSFUL.
    return_value: str | None = None
    #: False takes the attempt back: our doing, not the task's.
    charged: bool = True
    #: The real start of the run; None when the function was never called.
    started_at: datetime | None = None
    #: None for a claim that is given back unstarted.
    run: NewRun | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunExit:
    """Columns of a run that are known only after its child was joined."""

    job_id: UUID
    epoch: int
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescued:
    """A job taken from a worker that went silent."""

    job_id: UUID
    task_path: str
    worker_name: str
    attempt: int
    #: True: lost too often, now FAILED. False: READY again.
    failed: bool
