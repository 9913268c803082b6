"""
Parent side: how the worker speaks to the database of its rows, whatever the project has set there.

Each statement commits by itself: with `AUTOCOMMIT` off a claim would never be seen by others, nor
an outcome by anybody. On PostgreSQL each reads what is committed when it begins: under stricter
isolation workers that claim side by side would undo each other's statements.
The settings stay as they are, and so do the connections of tasks.
"""

from __future__ import annotations

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper


class Session:
    """The connection of one database alias, while the worker has it."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._is_changed = False

    def begin(self) -> None:
        """Make a new connection the worker's; what a transaction on it holds is committed."""
        connection = connections[self._using]
        if not connection.get_autocommit():
            connection.commit()
            connection.set_autocommit(True)
            self._is_changed = True
        if connection.vendor == "postgresql" and _read_what_is_committed(connection):
            self._is_changed = True

    def end(self) -> None:
        """Leave nothing of it to a host that goes on: its next connection is as its settings say."""
        if self._is_changed:
            connections[self._using].close()


def _read_what_is_committed(connection: BaseDatabaseWrapper) -> bool:
    """Lower the isolation if it is stricter than READ COMMITTED; tell whether it was."""
    from django.db.backends.postgresql.psycopg_any import IsolationLevel

    wanted = IsolationLevel.READ_COMMITTED
    is_set: bool = connection.isolation_level != wanted  # type: ignore[attr-defined]  # by OPTIONS
    if is_set:
        connection.connection.isolation_level = wanted
    with connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        if cursor.fetchone()[0] == "read committed":
            return is_set
        # Only where it is needed: behind a transaction pooler it stays with the server's connection.
        cursor.execute("SET default_transaction_isolation TO 'read committed'")
        return True
