"""
Claiming: taking ready jobs so that no other worker does.

PostgreSQL picks, locks and updates in one statement; MySQL and MariaDB in one short
transaction; SQLite in one UPDATE, which takes the only write lock before it looks.
The look at the worker's own lease is part of the statement that picks: a worker that
was suspended and wakes up cannot claim before a heartbeat has told it that it lives.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from dayfly.models import Job, Worker
from dayfly.queue.database import (
    change,
    fetch,
    from_uuid,
    now,
    patient,
    placeholders,
    to_moment,
    to_uuid,
    writing,
)
from dayfly.queue.names import ready_queues
from dayfly.queue.rows import Claim, Selection

JOB = Job._meta.db_table
WORKER = Worker._meta.db_table
READY_INDEX, READY_QUEUE_INDEX = (index.name for index in Job._meta.indexes[:2])

#: In the order of the fields of Claim.
COLUMNS = (
    "id",
    "epoch",
    "attempts",
    "task_path",
    "queue_name",
    "priority",
    "arguments",
    "run_after",
    "enqueued_at",
    "due_at",
    "claimed_at",
    "started_at",
    "times_lost",
)
#: How many rows of one queue other workers may hold locked before we see too few.
SLACK = 64
#: How many queues are named in place of those that are excluded: each costs a look of its own.
MOST_NAMED = 20


@patient
def claim(worker_id: UUID, selection: Selection, *, limit: int, using: str) -> list[Claim]:
    """
    Take up to *limit* ready jobs: highest priority first, then the oldest due, then by id.

    Gives nothing when the worker was declared lost, has stopped, or its lease is over.
    """
    connection = connections[using]
    if limit < 1:
        return []
    selection = _by_name(connection, selection)
    if selection.queues is not None and not _wanted(selection):
        return []
    worker = from_uuid(connection, worker_id)
    if connection.vendor == "mysql":
        rows = _claim_in_two_steps(connection, worker, selection, limit)
    else:
        rows = _claim_at_once(connection, worker, selection, limit)
    claims = [_to_claim(connection, row) for row in rows]
    # RETURNING keeps no order.
    return sorted(claims, key=lambda claim: (-claim.priority, claim.due_at, claim.job_id))


@patient
def held(worker_id: UUID, *, using: str) -> list[Claim]:
    """
    Give the claims that a worker holds by the database's account.

    For the claim whose answer was lost with the connection: the jobs are ours, and
    nobody else will run them.
    """
    connection = connections[using]
    sql = f"SELECT {', '.join(COLUMNS)} FROM {JOB} WHERE status = 'RUNNING' AND worker_id = %s"
    rows = fetch(connection, sql, [from_uuid(connection, worker_id)])
    claims = [_to_claim(connection, row) for row in rows]
    return sorted(claims, key=lambda claim: (-claim.priority, claim.due_at, claim.job_id))


def _claim_at_once(
    connection: BaseDatabaseWrapper, worker: Any, selection: Selection, limit: int
) -> list[Any]:
    """Claim in one statement (PostgreSQL, SQLite)."""
    moment = now(connection)
    picked, params = _pick(connection, worker, selection, limit, "id")
    changes = (
        "status = 'RUNNING', epoch = epoch + 1, attempts = attempts + 1, worker_id = %s,"
        f" claimed_at = {moment}, last_attempted_at = {moment},"
        f" started_at = COALESCE(started_at, {moment})"
    )
    columns = ", ".join(COLUMNS)
    if connection.vendor == "postgresql":
        # A CTE, not IN (SELECT ... LIMIT): the planner may run that one more than once.
        returning = ", ".join(f"job.{column}" for column in COLUMNS)
        sql = (
            f"WITH picked AS MATERIALIZED ({picked} FOR UPDATE SKIP LOCKED)"
            f" UPDATE {JOB} AS job SET {changes} FROM picked"
            f" WHERE job.id = picked.id RETURNING {returning}"
        )
        return fetch(connection, sql, [*params, worker])
    sql = f"UPDATE {JOB} SET {changes} WHERE id IN ({picked}) RETURNING {columns}"
    return fetch(connection, sql, [worker, *params])


def _claim_in_two_steps(
    connection: BaseDatabaseWrapper, worker: Any, selection: Selection, limit: int
) -> list[Any]:
    """Claim in one short transaction (MySQL and MariaDB have no UPDATE ... RETURNING)."""
    columns = ", ".join([*COLUMNS, now(connection)])
    picked, params = _pick(connection, worker, selection, limit, columns)
    with writing(connection):
        rows = fetch(connection, f"{picked} FOR UPDATE SKIP LOCKED", params)
        if not rows:
            return []
        moment = rows[0][-1]
        sql = (
            f"UPDATE {JOB} SET status = 'RUNNING', epoch = epoch + 1, attempts = attempts + 1,"
            " worker_id = %s, claimed_at = %s, last_attempted_at = %s,"
            f" started_at = COALESCE(started_at, %s) WHERE id IN ({placeholders(len(rows))})"
        )
        ids = [row[0] for row in rows]
        change(connection, sql, [worker, moment, moment, moment, *ids])
    return [_as_updated(row, moment) for row in rows]


def _as_updated(row: Any, moment: Any) -> list[Any]:
    """Turn a row as it was selected into what the UPDATE made of it."""
    values = dict(zip(COLUMNS, row, strict=False))
    values["epoch"] += 1
    values["attempts"] += 1
    values["claimed_at"] = moment
    values["started_at"] = values["started_at"] or moment
    return list(values.values())


def _pick(
    connection: BaseDatabaseWrapper, worker: Any, selection: Selection, limit: int, columns: str
) -> tuple[str, list[Any]]:
    """
    Write the SELECT of the jobs to claim.

    The status is a literal: partial indexes are not used for a parameter.
    The look at the worker is a subquery of its own, evaluated once and not locked.
    """
    ready = "status = 'READY' AND backend_name = %s"
    params: list[Any] = [selection.backend_name]
    index = READY_INDEX
    if selection.queues is None:
        if selection.exclude:
            ready += f" AND queue_name NOT IN ({placeholders(len(selection.exclude))})"
            params += selection.exclude
    else:
        queues = _wanted(selection)
        index = READY_QUEUE_INDEX
        if len(queues) == 1:
            ready += " AND queue_name = %s"
            params += queues
        else:
            index = "PRIMARY"
            candidates, more = _candidates(connection, selection.backend_name, queues, limit)
            ready, params = f"status = 'READY' AND id IN ({candidates})", more
            if connection.vendor == "postgresql":
                # An array is made once; IN (SELECT ...) may run again for every ready
                # row. COALESCE keeps the planner from walking the index of those rows.
                ready = f"COALESCE(status, '') = 'READY' AND id = ANY(ARRAY({candidates}))"
    alive = (
        f"(SELECT COUNT(*) FROM {WORKER} WHERE id = %s AND lost_at IS NULL"
        f" AND stopped_at IS NULL AND lease_expires_at > {now(connection)}) = 1"
    )
    sql = (
        f"SELECT {columns} FROM {JOB}{_hint(connection, index)} WHERE {ready} AND {alive}"
        f" ORDER BY priority DESC, due_at, id LIMIT {limit}"
    )
    return sql, [*params, worker]


def _by_name(connection: BaseDatabaseWrapper, selection: Selection) -> Selection:
    """
    Name the queues that are left when others are excluded, unless they are many.

    With NOT IN (...) alone a database walks past all that is ready in the excluded ones.
    """
    if selection.queues is not None or not selection.exclude:
        return selection
    names = ready_queues(
        connection, selection.backend_name, exclude=selection.exclude, limit=MOST_NAMED + 1
    )
    if len(names) > MOST_NAMED:
        return selection
    return replace(selection, queues=tuple(names))


def _wanted(selection: Selection) -> list[str]:
    """Give the queues that were named and not excluded."""
    return [name for name in dict.fromkeys(selection.queues or ()) if name not in selection.exclude]


def _candidates(
    connection: BaseDatabaseWrapper, backend_name: str, queues: list[str], limit: int
) -> tuple[str, list[Any]]:
    """
    Write the SELECT of the first jobs of each of several queues, unlocked.

    With IN (...) alone a database either sorts everything that is ready in these
    queues or walks past everything that is ready in the others.
    """
    count = limit if connection.vendor == "sqlite" else limit + SLACK
    head = (
        f"SELECT id FROM {JOB}{_hint(connection, READY_QUEUE_INDEX)} WHERE status = 'READY'"
        f" AND backend_name = %s AND queue_name = %s ORDER BY priority DESC, due_at, id LIMIT {count}"
    )
    parts = [f"SELECT id FROM ({head}) AS queue_{number}" for number in range(len(queues))]
    params = [value for name in queues for value in (backend_name, name)]
    return f"SELECT id FROM ({' UNION ALL '.join(parts)}) AS candidates", params


def _hint(connection: BaseDatabaseWrapper, index: str) -> str:
    """
    Name the index on MySQL and MariaDB.

    With a sort instead of the index's order, FOR UPDATE locks every ready row.
    """
    return f" FORCE INDEX ({index})" if connection.vendor == "mysql" else ""


def _to_claim(connection: BaseDatabaseWrapper, row: Any) -> Claim:
    """Turn a row of COLUMNS into a claim."""
    values = dict(zip(COLUMNS, row, strict=True))
    for name in ("run_after", "enqueued_at", "due_at", "claimed_at", "started_at"):
        values[name] = to_moment(connection, values[name])
    values["job_id"] = to_uuid(values.pop("id"))
    values["attempt"] = values.pop("attempts")
    return Claim(**values)
