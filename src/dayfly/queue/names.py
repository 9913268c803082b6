"""
Which queues have ready jobs, without a walk through all of these jobs.

The index is jumped through from name to name: as many steps as names, however many jobs.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from dayfly.models import Job
from dayfly.queue.database import fetch, placeholders

JOB = Job._meta.db_table
INDEX = Job._meta.indexes[1].name


def ready_queues(
    connection: BaseDatabaseWrapper, backend_name: str, *, exclude: Sequence[str] = (), limit: int
) -> list[str]:
    """Give the names of up to *limit* queues with ready jobs, but for those in *exclude*."""
    if connection.vendor == "mysql":
        return _one_by_one(connection, backend_name, exclude, limit)
    head = f"SELECT queue_name FROM {JOB} WHERE status = 'READY' AND backend_name = %s"
    sql = (
        f"WITH RECURSIVE names(name) AS (SELECT queue_name FROM"
        f" ({head} ORDER BY queue_name LIMIT 1) AS first UNION ALL"
        f" SELECT ({head} AND queue_name > names.name ORDER BY queue_name LIMIT 1)"
        " FROM names WHERE name IS NOT NULL)"
        f" SELECT name FROM names WHERE name IS NOT NULL{_but('name', exclude)} LIMIT {limit}"
    )
    return [row[0] for row in fetch(connection, sql, [backend_name, backend_name, *exclude])]


def _one_by_one(
    connection: BaseDatabaseWrapper, backend_name: str, exclude: Sequence[str], limit: int
) -> list[str]:
    """
    Ask for one more name until there is none.

    MySQL and MariaDB make ranges of NOT IN (...) with constants; of a name that another
    part of the statement found they make none, and read the whole index for each.
    """
    found: list[str] = []
    while len(found) < limit:
        known = [*exclude, *found]
        sql = (
            f"SELECT queue_name FROM {JOB} FORCE INDEX ({INDEX}) WHERE status = 'READY'"
            f" AND backend_name = %s{_but('queue_name', known)} LIMIT 1"
        )
        rows = fetch(connection, sql, [backend_name, *known])
        if not rows:
            break
        found.append(rows[0][0])
    return found


def _but(column: str, names: Sequence[str]) -> str:
    """Write the condition that leaves out *names*, if there are any."""
    return f" AND {column} NOT IN ({placeholders(len(names))})" if names else ""
