"""
Parent side: how the worker speaks to the database of its rows, whatever the project has set there.

Each statement commits by itself: with `AUTOCOMMIT` off a claim would never be seen by others, nor
an outcome by anybody. On PostgreSQL each reads what is committed when it begins: under stricter
isolation workers that claim side by side would undo each other's statements. And none waits for
long while another session holds locks: the worker would neither hear signals nor keep its lease.
The settings stay as they are, and so do the connections of tasks.
"""

from __future__ import annotations

import math

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

#: How long locks of others are waited for; on SQLite see dayfly.queue.database.
LOCK_SECONDS = 1.0


class Session:
    """The connection of one database alias, while the worker has it."""

    def __init__(self, using: str, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self._using = using
        self._lock_seconds = lock_seconds
        self._is_changed = False

    def begin(self) -> None:
        """Make a new connection the worker's; what a transaction on it holds is committed."""
        connection = connections[self._using]
        if not connection.get_autocommit():
            connection.commit()
            connection.set_autocommit(True)
            self._is_changed = True
        change = {"postgresql": self._on_postgresql, "mysql": self._on_mysql}.get(connection.vendor)
        if change is not None and change(connection):
            self._is_changed = True

    def end(self) -> None:
        """Leave nothing of it to a host that goes on: its next connection is as its settings say."""
        if self._is_changed:
            connections[self._using].close()

    def _on_postgresql(self, connection: BaseDatabaseWrapper) -> bool:
        """Read what is committed, and do not wait for long; tell whether that was any different."""
        from django.db.backends.postgresql.psycopg_any import IsolationLevel

        wanted = IsolationLevel.READ_COMMITTED
        is_changed: bool = connection.isolation_level != wanted  # type: ignore[attr-defined]  # by OPTIONS
        if is_changed:
            connection.connection.isolation_level = wanted
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('transaction_isolation'), pg_backend_pid(),"
                " (SELECT setting::bigint FROM pg_settings WHERE name = 'lock_timeout')"
            )
            isolation, pid, lock_milliseconds = cursor.fetchone()
            if isolation != "read committed":
                # Only where it is needed: behind a transaction pooler it stays with the server's connection.
                cursor.execute("SET default_transaction_isolation TO 'read committed'")
                is_changed = True
            wanted_milliseconds = round(self._lock_seconds * 1000)
            is_patient = lock_milliseconds == 0 or lock_milliseconds > wanted_milliseconds
            # A pooler invents a pid: there others would get this setting with the server's connection.
            if is_patient and pid == connection.connection.info.backend_pid:
                cursor.execute(f"SET lock_timeout TO {wanted_milliseconds}")
                is_changed = True
        return is_changed

    def _on_mysql(self, connection: BaseDatabaseWrapper) -> bool:
        """Wait for rows, and for tables that are being altered, in whole seconds."""
        seconds = max(math.ceil(self._lock_seconds), 1)
        names = ("innodb_lock_wait_timeout", "lock_wait_timeout")
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(f'@@{name}' for name in names)}")
            changes = [
                f"SESSION {name} = {seconds}"
                for name, now in zip(names, cursor.fetchone(), strict=True)
                if now > seconds
            ]
            if changes:
                cursor.execute(f"SET {', '.join(changes)}")
        return bool(changes)
