"""
Rescue: giving back the jobs of workers that went silent.

Any worker does it for all others. Host and pid are never looked at: a lease that is
over by the database's clock is the only test of life.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from dayfly.executor.outcome import Outcome
from dayfly.models import Job, JobStatus, Worker
from dayfly.queue.database import (
    change,
    clock,
    fetch,
    from_moment,
    from_uuid,
    now,
    patient,
    placeholders,
    to_moment,
    to_uuid,
    writing,
)
from dayfly.queue.outcomes import insert_runs
from dayfly.queue.rows import NewRun, Rescued

JOB = Job._meta.db_table
WORKER = Worker._meta.db_table
COLUMNS = (
    "id",
    "epoch",
    "attempts",
    "times_lost",
    "backend_name",
    "task_path",
    "worker_id",
    "enqueued_at",
    "due_at",
    "claimed_at",
)


@patient
def rescue(*, max_times_lost: Callable[[str], int], using: str, limit: int = 500) -> list[Rescued]:
    """
    Declare silent workers lost and give back what they held.

    Each job gets a run with the outcome "lost" and is READY again; one that was lost as
    often as *max_times_lost* says of its backend is FAILED, so that a job which takes its
    machine down does not take down all of them. At most *limit* jobs at a time: call again when there
    were as many.
    """
    connection = connections[using]
    # Almost always there is nothing to do: no lock is taken to learn that.
    if not _expired(connection) and not _holders(connection):
        return []
    with writing(connection):
        _declare_lost(connection)
        holders = _holders(connection)
        if not holders:
            return []
        jobs = _jobs_of(connection, holders, limit)
        workers = Worker.objects.using(using).in_bulk([one for one in holders if one is not None])
        return _give_back(connection, jobs, workers, max_times_lost)


@patient
def has_stranded(*, using: str) -> bool:
    """Tell whether there are jobs that the next rescue will give back."""
    connection = connections[using]
    sql = (
        f"SELECT 1 FROM {JOB} AS job LEFT JOIN {WORKER} AS worker ON worker.id = job.worker_id"
        f" WHERE job.status = 'RUNNING' AND ({_cannot_finish()}"
        f" OR worker.lease_expires_at < {now(connection)}) LIMIT 1"
    )
    return bool(fetch(connection, sql, []))


def _expired(connection: BaseDatabaseWrapper) -> list[Any]:
    """Give the ids (as the database has them) of workers whose lease is over."""
    return [row[0] for row in fetch(connection, _expired_sql(connection), [])]


def _expired_sql(connection: BaseDatabaseWrapper) -> str:
    return (
        f"SELECT id FROM {WORKER} WHERE lost_at IS NULL AND stopped_at IS NULL"
        f" AND lease_expires_at < {now(connection)}"
    )


def _declare_lost(connection: BaseDatabaseWrapper) -> None:
    """
    Set lost_at. A worker whose heartbeat is being written at this moment is skipped.

    Locked rows are skipped so that two rescuers do not wait for each other.
    """
    skip = "" if connection.vendor == "sqlite" else " FOR UPDATE SKIP LOCKED"
    ids = [row[0] for row in fetch(connection, f"{_expired_sql(connection)}{skip}", [])]
    if ids:
        sql = f"UPDATE {WORKER} SET lost_at = {now(connection)} WHERE id IN ({placeholders(len(ids))})"
        change(connection, sql, ids)


def _holders(connection: BaseDatabaseWrapper) -> list[UUID | None]:
    """
    Give the workers that hold jobs and cannot finish them.

    Lost, or stopped, or no longer in the table (None). A worker that was declared
    lost while its claim was under way turns up here the next time.
    """
    sql = (
        f"SELECT DISTINCT job.worker_id FROM {JOB} AS job"
        f" LEFT JOIN {WORKER} AS worker ON worker.id = job.worker_id"
        f" WHERE job.status = 'RUNNING' AND ({_cannot_finish()})"
    )
    return [row[0] and to_uuid(row[0]) for row in fetch(connection, sql, [])]


def _cannot_finish() -> str:
    return "worker.id IS NULL OR worker.lost_at IS NOT NULL OR worker.stopped_at IS NOT NULL"


def _jobs_of(
    connection: BaseDatabaseWrapper, holders: list[UUID | None], limit: int
) -> list[dict[str, Any]]:
    """Lock and give the running jobs of these workers."""
    known = [from_uuid(connection, one) for one in holders if one is not None]
    tests = [f"worker_id IN ({placeholders(len(known))})"] if known else []
    tests += ["worker_id IS NULL"] if None in holders else []
    skip = "" if connection.vendor == "sqlite" else " FOR UPDATE SKIP LOCKED"
    sql = (
        f"SELECT {', '.join(COLUMNS)} FROM {JOB} WHERE status = 'RUNNING'"
        f" AND ({' OR '.join(tests)}) LIMIT {limit}{skip}"
    )
    jobs = [dict(zip(COLUMNS, row, strict=True)) for row in fetch(connection, sql, known)]
    for job in jobs:
        job["id"] = to_uuid(job["id"])
        job["worker_id"] = job["worker_id"] and to_uuid(job["worker_id"])
        for name in ("enqueued_at", "due_at", "claimed_at"):
            job[name] = to_moment(connection, job[name])
    return jobs


def _give_back(
    connection: BaseDatabaseWrapper,
    jobs: list[dict[str, Any]],
    workers: dict[UUID, Worker],
    max_times_lost: Callable[[str], int],
) -> list[Rescued]:
    """Put jobs back, or fail them, and record how their runs ended."""
    moment = clock(connection)
    rescued, runs = [], []
    for job in jobs:
        worker = workers.get(job["worker_id"])
        losses = job["times_lost"] + 1
        most = max_times_lost(job["backend_name"])
        failed = losses >= most
        runs.append(_lost_run(job, worker, moment, _sentence(worker, losses, most)))
        rescued.append(
            Rescued(
                job_id=job["id"],
                task_path=job["task_path"],
                worker_name=worker.name if worker else "",
                attempt=job["attempts"],
                failed=failed,
            )
        )
    _update(connection, JobStatus.READY, [one.job_id for one in rescued if not one.failed])
    _update(connection, JobStatus.FAILED, [one.job_id for one in rescued if one.failed], moment)
    insert_runs(connection, runs)
    return rescued


def _update(
    connection: BaseDatabaseWrapper,
    status: JobStatus,
    job_ids: list[UUID],
    finished_at: datetime | None = None,
) -> None:
    """Settle rescued jobs. The epoch stays: the next claim raises it."""
    if not job_ids:
        return
    # A failed job keeps its worker, as those do that ended by themselves.
    holder = ", worker_id = NULL, claimed_at = NULL" if status == JobStatus.READY else ""
    sql = (
        f"UPDATE {JOB} SET status = %s, finished_at = %s, times_lost = times_lost + 1{holder}"
        f" WHERE id IN ({placeholders(len(job_ids))})"
    )
    ids = [from_uuid(connection, job_id) for job_id in job_ids]
    change(connection, sql, [str(status), from_moment(connection, finished_at), *ids])


def _sentence(worker: Worker | None, losses: int, max_times_lost: int) -> str:
    """Say what happened, and what comes next."""
    if worker is None:
        who = "The worker that held this job is gone, and so is its row"
    else:
        who = (
            f"Worker {worker.name} (host {worker.host}, pid {worker.pid}) died or went silent"
            f" while it held this job; it last spoke at {worker.heartbeat_at:%Y-%m-%d %H:%M:%S}"
        )
    if losses < max_times_lost:
        return f"{who}. The job went back to its queue (loss {losses} of {max_times_lost})."
    return (
        f"{who}. The job was lost {losses} times and is given up: see whether it takes its"
        " worker down (memory, for one), then enqueue it again or raise MAX_TIMES_LOST."
    )


def _lost_run(job: dict[str, Any], worker: Worker | None, moment: datetime, message: str) -> NewRun:
    """Record a run of which nothing is known but that its worker is gone."""
    claimed_at = job["claimed_at"]
    wait = (claimed_at - job["due_at"]).total_seconds() if claimed_at else None
    return NewRun(
        job_id=job["id"],
        epoch=job["epoch"],
        attempt=job["attempts"],
        worker_id=job["worker_id"],
        worker_name=worker.name if worker else "",
        task_path=job["task_path"],
        outcome=Outcome.LOST,
        message=message,
        exception_class_path="dayfly.exceptions.WorkerLost",
        enqueued_at=job["enqueued_at"],
        claimed_at=claimed_at,
        finished_at=moment,
        queue_wait_seconds=wait,
    )
