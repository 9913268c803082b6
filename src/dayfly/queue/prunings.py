"""
Pruning: finished jobs are deleted with their runs, and the rows of workers that ended.

In small transactions, so that nobody waits for one. What is to go is looked up without a lock, and
looked at again when it is locked: by then somebody may have it run once more.
"""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from dayfly.models import Job, JobStatus, Run, Worker
from dayfly.queue.database import change, fetch, now, patient, placeholders, writing
from dayfly.queue.rows import Pruning

JOB = Job._meta.db_table
RUN = Run._meta.db_table
WORKER = Worker._meta.db_table
SECONDS_OF_A_DAY = 86_400
IDS_AT_ONCE = 500
#: Databases know no earlier day than some in the first centuries, and nobody kept jobs then.
MAX_DAYS = 36_500


@patient
def prune(pruning: Pruning, *, limit: int, using: str) -> int:
    """
    Delete up to *limit* jobs that *pruning* is about, and their runs; return how many jobs.

    0 is the end: there are no more, or others hold what there is.
    """
    connection = connections[using]
    for status in _ages(pruning):
        condition, params = _old(connection, pruning, status)
        sql = f"SELECT id FROM {JOB} WHERE {condition} ORDER BY finished_at LIMIT {limit}"
        ids = [row[0] for row in fetch(connection, sql, params)]
        if ids and (count := _delete(connection, ids, condition, params)):
            return count
    return 0


def count_prunable(pruning: Pruning, *, using: str) -> int:
    """Return how many jobs *pruning* is about now."""
    connection = connections[using]
    total = 0
    for status in _ages(pruning):
        condition, params = _old(connection, pruning, status)
        total += fetch(connection, f"SELECT COUNT(*) FROM {JOB} WHERE {condition}", params)[0][0]
    return total


@patient
def prune_workers(pruning: Pruning, *, using: str) -> int:
    """
    Delete the rows of workers that ended longer ago than both ages, and that nothing names any more.

    Return how many. Where there are some to look at, all runs and jobs are read through once.
    """
    connection = connections[using]
    age = max(pruning.min_age_days, pruning.failed_min_age_days)
    ended = f"SELECT id FROM {WORKER} WHERE backend_name = %s AND {_ended(connection, age)}"
    ids = [row[0] for row in fetch(connection, ended, [pruning.backend_name])]
    starts = range(0, len(ids), IDS_AT_ONCE)
    return sum(_delete_workers(connection, ids[start : start + IDS_AT_ONCE]) for start in starts)


def _delete_workers(connection: BaseDatabaseWrapper, ids: list[Any]) -> int:
    named: set[Any] = set()
    for table in (RUN, JOB):
        sql = (
            f"SELECT DISTINCT worker_id FROM {table} WHERE worker_id IN ({placeholders(len(ids))})"
        )
        named |= {row[0] for row in fetch(connection, sql, ids)}
    # By their ids, as MySQL and MariaDB would lock those that live, too, whose heartbeats wait then.
    unnamed = [each for each in ids if each not in named]
    if not unnamed:
        return 0
    sql = f"DELETE FROM {WORKER} WHERE id IN ({placeholders(len(unnamed))})"
    return change(connection, sql, unnamed)


def _delete(connection: BaseDatabaseWrapper, ids: list[Any], condition: str, params: Any) -> int:
    skip = "" if connection.vendor == "sqlite" else " FOR UPDATE SKIP LOCKED"
    with writing(connection):
        sql = f"SELECT id FROM {JOB} WHERE id IN ({placeholders(len(ids))}) AND {condition}{skip}"
        held = [row[0] for row in fetch(connection, sql, [*ids, *params])]
        if not held:
            return 0
        change(connection, f"DELETE FROM {RUN} WHERE job_id IN ({placeholders(len(held))})", held)
        return change(
            connection, f"DELETE FROM {JOB} WHERE id IN ({placeholders(len(held))})", held
        )


def _ages(pruning: Pruning) -> dict[JobStatus, float]:
    return {
        JobStatus.SUCCESSFUL: pruning.min_age_days,
        JobStatus.FAILED: pruning.failed_min_age_days,
    }


def _old(
    connection: BaseDatabaseWrapper, pruning: Pruning, status: JobStatus
) -> tuple[str, list[Any]]:
    """Write what is true of jobs that ended with *status* long enough ago."""
    # A literal, as in the condition of the partial index.
    condition = (
        f"status = '{status.value}' AND finished_at <= {_ago(connection, _ages(pruning)[status])}"
        " AND backend_name = %s"
    )
    params: list[Any] = [pruning.backend_name]
    for names, test in ((pruning.queues, "IN"), (pruning.exclude, "NOT IN")):
        if names:
            condition += f" AND queue_name {test} ({placeholders(len(names))})"
            params += names
    return condition, params


def _ended(connection: BaseDatabaseWrapper, days: float) -> str:
    """Write what is true of workers that ended so long ago."""
    ago = _ago(connection, days)
    return f"(stopped_at <= {ago} OR lost_at <= {ago})"


def _ago(connection: BaseDatabaseWrapper, days: float) -> str:
    return now(connection, plus_seconds=-min(days, MAX_DAYS) * SECONDS_OF_A_DAY)
