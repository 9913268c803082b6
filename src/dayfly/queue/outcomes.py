"""
Writing outcomes: what becomes of claims, and the runs that say how they ended.

The fence: an outcome is accepted only if the job is still RUNNING, under the same
worker and the same epoch. Writing one twice is harmless, since (job, epoch) is
unique among runs: after a commit whose answer was lost, simply repeat.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field

from dayfly.models import Job, Run
from dayfly.queue.database import (
    change,
    clean,
    clock,
    fetch,
    from_moment,
    from_uuid,
    moment_parameter,
    now,
    patient,
    placeholders,
    to_uuid,
    writing,
)
from dayfly.queue.rows import NewRun, RunExit, Settlement

JOB = Job._meta.db_table
RUN = Run._meta.db_table
RUN_FIELDS: dict[str, Field[Any, Any]] = {
    field.attname: field for field in Run._meta.concrete_fields
}

# MySQL evaluates assignments from left to right and lets later ones see earlier
# ones: attempts comes last, since the others look at its old value.
CHANGES = """
    status = {status},
    return_value = {return_value},
    finished_at = CASE WHEN {status} = 'READY' THEN NULL ELSE {now} END,
    worker_id = CASE WHEN {status} = 'READY' THEN NULL ELSE {job}worker_id END,
    claimed_at = CASE WHEN {status} = 'READY' THEN NULL ELSE {job}claimed_at END,
    started_at = CASE
        WHEN {job}attempts > 1 THEN {job}started_at
        WHEN {charged} THEN COALESCE({started_at}, {job}started_at)
        ELSE NULL END,
    last_attempted_at = CASE
        WHEN {charged} THEN COALESCE({started_at}, {job}last_attempted_at)
        WHEN {job}attempts > 1 THEN COALESCE(
            (SELECT MAX(run.started_at) FROM {run} AS run
             WHERE run.job_id = {job}id AND run.outcome <> 'stopped'),
            {job}last_attempted_at)
        ELSE NULL END,
    attempts = CASE WHEN {charged} THEN {job}attempts ELSE {job}attempts - 1 END
"""


@patient
def finish(worker_id: UUID, settlements: Sequence[Settlement], *, using: str) -> set[UUID]:
    """
    Write what became of claims, all in one transaction.

    Gives the ids of the jobs whose outcome stands, now or from an earlier try; the
    others were rescued from this worker in the meantime, and stay as they are.
    """
    if not settlements:
        return set()
    connection = connections[using]
    worker = from_uuid(connection, worker_id)
    if connection.vendor == "postgresql":
        accepted = _finish_at_once(connection, worker, settlements)
    else:
        with writing(connection):
            accepted = _finish_each(connection, worker, settlements)
    refused = [one for one in settlements if one.job_id not in accepted]
    return accepted | _written_before(connection, worker, refused) if refused else accepted


@patient
def note_exits(exits: Sequence[RunExit], *, using: str) -> None:
    """Add to runs what became known when their children were joined."""
    if not exits or not exits[0].fields:
        return
    connection = connections[using]
    names = list(exits[0].fields)
    if unknown := set(names) - set(RUN_FIELDS):
        message = f"Run has no column {', '.join(sorted(unknown))}."
        raise ValueError(message)
    if connection.vendor == "postgresql":
        records = [
            {"job_id": one.job_id, "epoch": one.epoch, **one.fields}  # the key, and what is new
            for one in exits
        ]
        said = _recordset(connection, ["job_id", "epoch", *names])
        changes = ", ".join(f"{name} = said.{name}" for name in names)
        sql = (
            f"UPDATE {RUN} AS run SET {changes} FROM {said}"
            " WHERE run.job_id = said.job_id AND run.epoch = said.epoch"
        )
        change(connection, sql, [_to_json(records)])
        return
    changes = ", ".join(f"{connection.ops.quote_name(name)} = %s" for name in names)
    rows = [
        [
            *(_save(connection, name, one.fields[name]) for name in names),
            from_uuid(connection, one.job_id),
            one.epoch,
        ]
        for one in exits
    ]
    with writing(connection), connection.cursor() as cursor:
        cursor.executemany(f"UPDATE {RUN} SET {changes} WHERE job_id = %s AND epoch = %s", rows)


def _finish_at_once(
    connection: BaseDatabaseWrapper, worker: Any, settlements: Sequence[Settlement]
) -> set[UUID]:
    """
    Write all jobs and all runs in one statement (PostgreSQL).

    The rows travel as one JSON parameter each: binding fifty values per run in the
    driver costs more than the statement.
    """
    changes = CHANGES.format(
        status="said.status",
        return_value="said.return_value",
        charged="said.charged",
        started_at="said.started_at",
        now=now(connection),
        job="job.",
        run=RUN,
    )
    columns = ", ".join(RUN_FIELDS)
    values = ", ".join(
        f"COALESCE(run.finished_at, {now(connection)})" if name == "finished_at" else f"run.{name}"
        for name in RUN_FIELDS
    )
    sql = f"""
        WITH settled AS (
            UPDATE {JOB} AS job SET {changes}
            FROM json_to_recordset(%s::json) AS said(job_id uuid, epoch integer, status text,
                return_value text, charged boolean, started_at timestamptz)
            WHERE job.id = said.job_id AND job.epoch = said.epoch
                AND job.worker_id = %s AND job.status = 'RUNNING'
            RETURNING job.id, job.epoch
        ), recorded AS (
            INSERT INTO {RUN} ({columns})
            SELECT {values} FROM {_recordset(connection, list(RUN_FIELDS), "run")}
            JOIN settled ON settled.id = run.job_id AND settled.epoch = run.epoch
            ON CONFLICT DO NOTHING
        )
        SELECT id FROM settled
    """
    said = [
        {
            "job_id": one.job_id,
            "epoch": one.epoch,
            "status": one.status,
            "return_value": one.return_value,
            "charged": one.charged,
            "started_at": one.started_at,
        }
        for one in settlements
    ]
    runs = [_record(one.run) for one in settlements if one.run is not None]
    rows = fetch(connection, sql, [_to_json(said), worker, _to_json(runs)])
    return {to_uuid(row[0]) for row in rows}


def _finish_each(
    connection: BaseDatabaseWrapper, worker: Any, settlements: Sequence[Settlement]
) -> set[UUID]:
    """Write job by job, then the runs of those that were accepted."""
    later = moment_parameter(connection)
    # Each value is used more than once, and drivers disagree about named parameters.
    changes = CHANGES.format(
        status="said.status",
        return_value="said.return_value",
        charged="said.charged",
        started_at="said.started_at",
        now=now(connection),
        job=f"{JOB}.",  # a bare id would be that of the subquery's run
        run=RUN,
    )
    order = [part.split()[0].rstrip(",)") for part in changes.split("said.")[1:]]
    for name in ("status", "return_value", "charged"):
        changes = changes.replace(f"said.{name}", "%s")
    changes = changes.replace("said.started_at", later)
    sql = (
        f"UPDATE {JOB} SET {changes}"
        " WHERE id = %s AND epoch = %s AND worker_id = %s AND status = 'RUNNING'"
    )
    accepted = set()
    for one in settlements:
        said = {
            "status": str(one.status),
            "return_value": one.return_value,
            "charged": one.charged,
            "started_at": from_moment(connection, one.started_at),
        }
        key = [from_uuid(connection, one.job_id), one.epoch, worker]
        if change(connection, sql, [*(said[name] for name in order), *key]):
            accepted.add(one.job_id)
    insert_runs(connection, [one.run for one in settlements if one.run and one.job_id in accepted])
    return accepted


def insert_runs(connection: BaseDatabaseWrapper, runs: Sequence[NewRun]) -> None:
    """Insert runs; those whose (job, epoch) is there already are left as they are."""
    if not runs:
        return
    if any(run.finished_at is None for run in runs):
        moment = clock(connection)
        for run in runs:
            run.finished_at = run.finished_at or moment
    columns = _columns(connection, RUN_FIELDS)
    nothing = (
        "ON DUPLICATE KEY UPDATE id = id"
        if connection.vendor == "mysql"
        else "ON CONFLICT DO NOTHING"
    )
    sql = f"INSERT INTO {RUN} ({columns}) VALUES ({placeholders(len(RUN_FIELDS))}) {nothing}"
    rows = [[_save(connection, name, getattr(run, name)) for name in RUN_FIELDS] for run in runs]
    with connection.cursor() as cursor:
        cursor.executemany(sql, rows)


def _written_before(
    connection: BaseDatabaseWrapper, worker: Any, settlements: Sequence[Settlement]
) -> set[UUID]:
    """
    Give the jobs whose run was written by an earlier try of the same worker.

    A run that its rescuer wrote, as lost, bears the same key and is not meant.
    """
    epochs = {one.job_id: one.epoch for one in settlements}
    ids = [from_uuid(connection, job_id) for job_id in epochs]
    sql = (
        f"SELECT job_id, epoch FROM {RUN} WHERE job_id IN ({placeholders(len(ids))})"
        " AND worker_id = %s AND outcome <> 'lost'"
    )
    rows = fetch(connection, sql, [*ids, worker])
    return {
        job_id
        for job_id, epoch in ((to_uuid(row[0]), row[1]) for row in rows)
        if epochs[job_id] == epoch
    }


def _columns(connection: BaseDatabaseWrapper, names: Iterable[str]) -> str:
    """Write column names, quoted: "signal" is a word of MySQL's own."""
    return ", ".join(connection.ops.quote_name(name) for name in names)


def _save(connection: BaseDatabaseWrapper, name: str, value: Any) -> Any:
    """Turn a value of a run into a parameter."""
    field = RUN_FIELDS[name]
    return field.get_db_prep_save(clean(field, value), connection)


def _record(run: NewRun) -> dict[str, Any]:
    """Give what is known of a run; json_to_recordset makes the rest null."""
    return {
        name: clean(RUN_FIELDS[name], value) if isinstance(value, str) else value
        for name, value in vars(run).items()
        if value is not None
    }


#: Columns of Run on PostgreSQL, the only database that takes records as JSON.
_column_types: dict[str, str] = {}


def _recordset(connection: BaseDatabaseWrapper, names: list[str], alias: str = "said") -> str:
    """Write the table that a JSON parameter with these columns of Run becomes."""
    for name in names:
        if name not in _column_types:
            _column_types[name] = f"{name} {RUN_FIELDS[name].db_type(connection)}"
    columns = ", ".join(_column_types[name] for name in names)
    return f"json_to_recordset(%s::json) AS {alias}({columns})"


def _to_json(records: list[dict[str, Any]]) -> str:
    """Write records as JSON. A float that is not a number has no place in it: null."""
    try:
        return json.dumps(records, default=_to_text, allow_nan=False)
    except ValueError:
        for record in records:
            for name, value in record.items():
                if isinstance(value, float) and not math.isfinite(value):
                    record[name] = None
        return json.dumps(records, default=_to_text)


def _to_text(value: Any) -> str:
    """Write what JSON has no word for."""
    return value.isoformat() if isinstance(value, datetime) else str(value)
