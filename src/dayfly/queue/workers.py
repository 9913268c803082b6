"""The life of a worker's row: registered, renewed by heartbeats, retired."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connections

from dayfly.fields import instant
from dayfly.models import Worker
from dayfly.queue.database import change, clock, fetch, from_uuid, now, patient, to_moment

WORKER = Worker._meta.db_table
#: What a heartbeat may tell.
FIGURES = frozenset({"rss_bytes", "anon_bytes", "vms_bytes", "children", "children_pss_bytes"})


@patient
def register(worker: Worker, *, lease_seconds: float, using: str) -> datetime:
    """Insert the row of a worker that starts, and give the database's time."""
    moment = clock(connections[using])
    worker.started_at = worker.heartbeat_at = moment
    # Not from a local time, which may be an hour off a minute later.
    worker.lease_expires_at = instant(moment) + timedelta(seconds=lease_seconds)
    worker.save(using=using, force_insert=True)
    return moment


@patient
def heartbeat(
    worker_id: UUID, figures: Mapping[str, int | None], *, lease_seconds: float, using: str
) -> datetime | None:
    """
    Renew a worker's lease and note its *figures* (columns of Worker).

    Gives the database's time, or None when the worker was declared lost or has
    stopped: its jobs may be somebody else's by now, and it must claim no more.
    """
    if unknown := set(figures) - FIGURES:
        message = (
            f"A heartbeat cannot tell {', '.join(sorted(unknown))}: see queue.workers.FIGURES."
        )
        raise ValueError(message)
    connection = connections[using]
    columns = "".join(f", {name} = %s" for name in figures)
    sql = (
        f"UPDATE {WORKER} SET heartbeat_at = {now(connection)},"
        f" lease_expires_at = {now(connection, lease_seconds)}{columns}"
        " WHERE id = %s AND lost_at IS NULL AND stopped_at IS NULL"
    )
    identity = from_uuid(connection, worker_id)
    params = [*figures.values(), identity]
    if connection.vendor == "mysql":
        if not change(connection, sql, params):
            return None
        rows = fetch(connection, f"SELECT heartbeat_at FROM {WORKER} WHERE id = %s", [identity])
    else:
        rows = fetch(connection, f"{sql} RETURNING heartbeat_at", params)
    if not rows:
        return None
    moment: datetime = to_moment(connection, rows[0][0])
    return moment


@patient
def retire(worker_id: UUID, *, using: str) -> None:
    """Note that a worker stopped; nothing can be claimed in its name any more."""
    connection = connections[using]
    sql = f"UPDATE {WORKER} SET stopped_at = {now(connection)} WHERE id = %s AND stopped_at IS NULL"
    change(connection, sql, [from_uuid(connection, worker_id)])
