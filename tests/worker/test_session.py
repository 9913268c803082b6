"""The worker's connection is its own, whatever the project has set; a host gets its own back."""

from __future__ import annotations

from collections.abc import Iterator

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


def test_connection_that_was_right_is_left_to_the_host() -> None:
    connection.ensure_connection()
    driver = connection.connection
    session = Session("default")

    session.begin()
    session.end()

    assert connection.connection is driver


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
