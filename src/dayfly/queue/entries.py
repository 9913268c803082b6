"""How jobs enter the queue: added, and promoted when they are due."""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from dayfly.ids import uuid7
from dayfly.models import Job, JobStatus
from dayfly.queue.database import (
    change,
    fetch,
    from_moment,
    from_uuid,
    moment_parameter,
    now,
    patient,
    placeholders,
    to_moment,
    writing,
)
from dayfly.queue.rows import NewJob, Selection

JOB = Job._meta.db_table


@patient
def add(new: NewJob, *, using: str) -> Job:
    """
    Insert one job, in the caller's transaction if there is one.

    Exactly one statement. MySQL cannot return what it inserted: there the moments of
    the returned object (not of the row) are by this process's clock.
    """
    connection = connections[using]
    job = Job(
        id=uuid7(),
        backend_name=new.backend_name,
        queue_name=new.queue_name,
        priority=new.priority,
        task_path=new.task_path,
        arguments=new.arguments,
        run_after=new.run_after,
    )
    moment, later = now(connection), moment_parameter(connection)
    run_after = from_moment(connection, new.run_after)
    if new.run_after is None:
        status_sql, due_sql, moments = "'READY'", moment, [run_after]
    else:
        status_sql = f"CASE WHEN {later} > {moment} THEN 'SCHEDULED' ELSE 'READY' END"
        due_sql, moments = later, [run_after, run_after, run_after]
    sql = (
        f"INSERT INTO {JOB} (id, backend_name, queue_name, priority, task_path, arguments,"
        " epoch, attempts, times_lost, enqueued_at, status, due_at, run_after)"
        f" VALUES (%s, %s, %s, %s, %s, %s, 0, 0, 0, {moment}, {status_sql}, {due_sql}, {later})"
    )
    params = [
        from_uuid(connection, job.id),
        job.backend_name,
        job.queue_name,
        int(job.priority),
        job.task_path,
        job.arguments,
        *moments,
    ]
    _insert(connection, job, sql, params)
    job._state.adding = False
    job._state.db = using
    return job


def _insert(connection: BaseDatabaseWrapper, job: Job, sql: str, params: list[Any]) -> None:
    """Run the INSERT and learn what the database's clock made of it."""
    if connection.features.can_return_columns_from_insert:
        row = fetch(connection, f"{sql} RETURNING status, enqueued_at, due_at", params)[0]
        job.status = JobStatus(row[0])
        job.enqueued_at, job.due_at = (to_moment(connection, value) for value in row[1:])
        return
    change(connection, sql, params)
    job.enqueued_at = timezone.now()
    job.due_at = job.run_after or job.enqueued_at
    job.status = JobStatus.SCHEDULED if job.due_at > job.enqueued_at else JobStatus.READY


@patient
def promote(*, using: str, limit: int = 1000) -> int:
    """Make the jobs that are due READY, the earliest first. Give how many there were."""
    connection = connections[using]
    due = (
        f"SELECT id FROM {JOB} WHERE status = 'SCHEDULED' AND due_at <= {now(connection)}"
        f" ORDER BY due_at LIMIT {limit}"
    )
    update = f"UPDATE {JOB} SET status = 'READY' WHERE status = 'SCHEDULED' AND id IN"
    if connection.vendor == "postgresql":
        sql = f"WITH due AS ({due} FOR UPDATE SKIP LOCKED) {update} (SELECT id FROM due)"
        return change(connection, sql, [])
    if connection.vendor == "sqlite":
        # A look first: an UPDATE waits for other writers even when it matches nothing.
        if not fetch(connection, f"SELECT EXISTS ({due})", [])[0][0]:
            return 0
        return change(connection, f"{update} ({due})", [])
    with writing(connection):
        ids = [row[0] for row in fetch(connection, f"{due} FOR UPDATE SKIP LOCKED", [])]
        if not ids:
            return 0
        return change(connection, f"{update} ({placeholders(len(ids))})", ids)


@patient
def next_due_seconds(*, using: str) -> float | None:
    """Give how long until the earliest scheduled job is due; None when there is none."""
    connection = connections[using]
    moment = now(connection)
    wait = {
        "postgresql": f"EXTRACT(EPOCH FROM MIN(due_at) - {moment})",
        "mysql": f"TIMESTAMPDIFF(MICROSECOND, {moment}, MIN(due_at)) / 1000000.0",
        "sqlite": f"(julianday(MIN(due_at)) - julianday({moment})) * 86400.0",
    }[connection.vendor]
    value = fetch(connection, f"SELECT {wait} FROM {JOB} WHERE status = 'SCHEDULED'", [])[0][0]
    return None if value is None else max(0.0, float(value))


def notify(queue_name: str, *, using: str) -> None:
    """Wake the workers that listen. PostgreSQL only; elsewhere nothing happens."""
    connection = connections[using]
    if connection.vendor == "postgresql":
        fetch(connection, "SELECT pg_notify('dayfly', %s)", [queue_name])


def count_ready(selection: Selection, *, using: str) -> int:
    """Count the jobs that *selection* could claim now, for progress bars."""
    connection = connections[using]
    where, params = "status = 'READY' AND backend_name = %s", [selection.backend_name]
    for names, word in ((selection.queues, "IN"), (selection.exclude, "NOT IN")):
        if names:
            where += f" AND queue_name {word} ({placeholders(len(names))})"
            params += names
    return int(fetch(connection, f"SELECT COUNT(*) FROM {JOB} WHERE {where}", params)[0][0])
