"""What errors are about, as real servers and drivers word them."""

from __future__ import annotations

import gc
import random
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.utils import Error

from dayfly.models import Worker
from dayfly.queue.faults import Fault, fault_of

on = pytest.mark.skipif
on_postgresql = on("connection.vendor != 'postgresql'", reason="asks PostgreSQL")
on_mysql = on("connection.vendor != 'mysql'", reason="asks MariaDB or MySQL")
on_sqlite = on("connection.vendor != 'sqlite'", reason="asks SQLite")

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server() -> Iterator[Any]:
    """A connection of the test's own, which it may break."""
    wrapper = connection.copy()
    yield wrapper
    wrapper.close()


def fault_in(server: Any, sql: str, *params: Any) -> Fault:
    """Run a statement that fails; tell what is said to be wrong with it."""
    with pytest.raises(Error) as caught, server.cursor() as cursor:
        cursor.execute(sql, params)
    return fault_of(caught.value)


def run(server: Any, sql: str, *params: Any) -> None:
    with server.cursor() as cursor:
        cursor.execute(sql, params)


@pytest.fixture
def other() -> Iterator[Any]:
    """Another session, which holds locks for as long as it is in a transaction."""
    wrapper = connection.copy()
    wrapper.set_autocommit(False)
    yield wrapper
    wrapper.close()


# Everywhere


def test_value_that_its_column_does_not_take(server: Any, worker: Callable[..., Any]) -> None:
    sql = "UPDATE dayfly_worker SET concurrency = %s"
    worker()

    assert fault_in(server, sql, None) is Fault.VALUE
    assert fault_in(server, sql, -1) is Fault.VALUE


def test_row_that_is_there_already(worker: Callable[..., Any]) -> None:
    row = worker()

    with pytest.raises(Error) as caught:
        Worker(**{each.attname: getattr(row, each.attname) for each in row._meta.fields}).save(
            force_insert=True
        )

    assert fault_of(caught.value) is Fault.VALUE


def test_table_that_is_not_there_may_come_back(server: Any) -> None:
    assert fault_in(server, "SELECT * FROM no_such_table") is Fault.NOT_NOW


# PostgreSQL


@on_postgresql
@pytest.mark.parametrize("value", ["nul \0", "x" * 65])
def test_text_that_postgresql_does_not_take(server: Any, worker: Any, value: str) -> None:
    worker()

    assert fault_in(server, "UPDATE dayfly_worker SET name = %s", value) is Fault.VALUE


@on_postgresql
def test_text_that_is_too_large_for_postgresql(server: Any) -> None:
    run(server, "CREATE TEMP TABLE wide (value text PRIMARY KEY)")

    value = random.Random(1).randbytes(20_000).hex()  # it cannot be compressed
    assert fault_in(server, "INSERT INTO wide VALUES (%s)", value) is Fault.VALUE


@on_postgresql
def test_standby_of_postgresql_is_no_fault_of_the_row(server: Any) -> None:
    run(server, "SET default_transaction_read_only = on")

    assert fault_in(server, "UPDATE dayfly_worker SET pid = 1") is Fault.NOT_NOW


@on_postgresql
def test_statement_that_postgresql_cancelled_may_be_repeated(server: Any) -> None:
    run(server, "SET statement_timeout = 1")

    assert fault_in(server, "SELECT pg_sleep(10)") is Fault.NOT_NOW


@on_postgresql
def test_row_that_another_session_of_postgresql_holds(
    server: Any, other: Any, worker: Callable[..., Any]
) -> None:
    worker()
    run(other, "UPDATE dayfly_worker SET pid = 1")
    run(server, "SET lock_timeout TO 1")

    assert fault_in(server, "UPDATE dayfly_worker SET pid = 2") is Fault.LOCKED


@on_postgresql
def test_connection_that_postgresql_ended(server: Any) -> None:
    with server.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    run(connection, "SELECT pg_terminate_backend(%s, 5000)", pid)

    assert fault_in(server, "SELECT 1") in (Fault.NOT_NOW, Fault.BROKEN)
    assert fault_in(server, "SELECT 1") is Fault.BROKEN


# MariaDB and MySQL


@on_mysql
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("TEXT CHARACTER SET utf8mb3", "\N{GRINNING FACE}"),
        ("VARCHAR(3)", "four"),
        ("INTEGER", "no number"),
        ("INTEGER", 1 << 40),
        ("DATETIME(6)", "no moment"),
    ],
)
def test_value_that_mysql_does_not_take(server: Any, kind: str, value: Any) -> None:
    run(server, f"CREATE TEMPORARY TABLE one (value {kind})")

    assert fault_in(server, "INSERT INTO one VALUES (%s)", value) is Fault.VALUE


@on_mysql
def test_packet_that_is_too_large_for_mysql(server: Any) -> None:
    with server.cursor() as cursor:
        cursor.execute("SELECT @@max_allowed_packet")
        (limit,) = cursor.fetchone()
    if limit > 100_000_000:
        pytest.skip("the server takes packets of any size that a test would send")

    # The server says why, and hangs up; not every driver gets to read why.
    first = fault_in(server, "SELECT %s", "x" * (limit + 1_000))
    assert first in (Fault.VALUE, Fault.BROKEN)
    assert fault_in(server, "SELECT 1") is Fault.BROKEN


@on_mysql
def test_mysql_that_is_read_only_is_no_fault_of_the_row(server: Any) -> None:
    run(server, "SET SESSION TRANSACTION READ ONLY")

    assert fault_in(server, "UPDATE dayfly_worker SET pid = 1") is Fault.NOT_NOW


@on_mysql
@pytest.mark.parametrize("wanted", ["row", "table"])
def test_what_another_session_of_mysql_holds(
    server: Any, other: Any, worker: Callable[..., Any], wanted: str
) -> None:
    worker()
    run(other, "UPDATE dayfly_worker SET pid = 1")
    run(server, "SET innodb_lock_wait_timeout = 1, lock_wait_timeout = 1")

    sql = {
        "row": "UPDATE dayfly_worker SET pid = 2",
        "table": "ALTER TABLE dayfly_worker COMMENT = 'wanted'",
    }[wanted]
    assert fault_in(server, sql) is Fault.LOCKED


@on_mysql
def test_connection_that_mysql_ended(server: Any) -> None:
    with server.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        (number,) = cursor.fetchone()
    run(connection, f"KILL {number}")

    assert fault_in(server, "SELECT 1") in (Fault.NOT_NOW, Fault.BROKEN)
    assert fault_in(server, "SELECT 1") is Fault.BROKEN


# SQLite


@on_sqlite
def test_text_that_is_too_large_for_sqlite(server: Any) -> None:
    server.ensure_connection()
    server.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000)

    assert fault_in(server, "SELECT %s", "x" * 1_001) is Fault.VALUE


@on_sqlite
def test_file_of_sqlite_that_is_locked(server: Any) -> None:
    run(server, "PRAGMA busy_timeout = 0")
    with transaction.atomic():
        run(connection, "DELETE FROM dayfly_worker")
        assert fault_in(server, "DELETE FROM dayfly_worker") is Fault.NOT_NOW


@on_sqlite
def test_file_of_sqlite_that_cannot_be_opened(server: Any, tmp_path: Path) -> None:
    server.settings_dict["NAME"] = str(tmp_path / "no" / "such.sqlite3")

    assert fault_in(server, "SELECT 1") is Fault.NOT_NOW


@on_sqlite
def test_file_that_is_none_of_sqlites(server: Any, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"no database at all" * 100)
    server.settings_dict["NAME"] = str(file)

    with warnings.catch_warnings():
        # Django has opened the file by then, and drops it.
        warnings.simplefilter("ignore", ResourceWarning)
        fault = fault_in(server, "SELECT * FROM dayfly_job")
        gc.collect()

    assert fault is Fault.NOT_NOW
