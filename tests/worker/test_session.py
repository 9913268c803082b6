"""The worker's connection is its own, whatever the project has set; a host gets its own back."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from dayfly.worker.session import Session

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def fresh() -> Iterator[None]:
    """Let the connection be opened anew; ask for it before `monkeypatch`, which is then undone before."""
    connection.close()
    yield
    connection.close()


def isolation() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        level: str = cursor.fetchone()[0]
    return level


def test_statements_commit_where_the_project_switches_autocommit_off(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "AUTOCOMMIT", False)
    session = Session("default")
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")  # it has begun a transaction

    session.begin()
    assert connection.get_autocommit()

    session.end()
    assert not connection.get_autocommit()


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="the worker sets nothing on SQLite")
def test_connection_that_was_right_is_left_to_the_host() -> None:
    connection.ensure_connection()
    driver = connection.connection
    session = Session("default")

    session.begin()
    session.end()

    assert connection.connection is driver


def lock_waits() -> tuple[Any, ...]:
    """Return how long this connection waits for locks, as its server says it."""
    names = {
        "postgresql": "SELECT current_setting('lock_timeout')",
        "mysql": "SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout",
    }
    with connection.cursor() as cursor:
        cursor.execute(names[connection.vendor])
        waits: tuple[Any, ...] = tuple(cursor.fetchone())
    return waits


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has a timeout of Django's")
def test_locks_of_others_are_not_waited_for_without_end(fresh: None) -> None:
    of_host = lock_waits()
    session = Session("default", lock_seconds=1.25)

    session.begin()
    of_worker = lock_waits()
    session.end()

    assert of_worker == {"postgresql": ("1250ms",), "mysql": (2, 2)}[connection.vendor]
    assert lock_waits() == of_host


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="PostgreSQL only")
def test_less_patience_of_the_projects_own_is_left(fresh: None) -> None:
    session = Session("default")
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout TO '10ms'")

    session.begin()

    assert lock_waits() == ("10ms",)


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="PostgreSQL has such poolers")
def test_behind_a_pooler_nothing_is_set_that_others_would_inherit(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.ensure_connection()
    monkeypatch.setattr(type(connection.connection), "info", SimpleNamespace(backend_pid=1))

    Session("default").begin()

    assert lock_waits() == ("0",)


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="PostgreSQL only")
@pytest.mark.parametrize("where", ["server", "options"])
def test_stricter_isolation_is_not_the_workers(
    fresh: None, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from django.db.backends.postgresql.psycopg_any import IsolationLevel

    given: dict[str, object] = {"isolation_level": IsolationLevel.SERIALIZABLE}
    if where == "server":
        given = {"options": "-c default_transaction_isolation=serializable"}
    options = {**connection.settings_dict["OPTIONS"], **given}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    session = Session("default")

    session.begin()

    assert isolation() == "read committed"
    with connection.wrap_database_errors:
        connection.set_autocommit(False)
        assert isolation() == "read committed"
        connection.rollback()
        connection.set_autocommit(True)
    session.end()
    assert connection.connection is None
