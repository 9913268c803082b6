"""
Parent side: the queue's verbs over a connection that may go away.

A database restart, a failover, a dropped connection: the verb raises DatabaseAway, the
caller keeps what it wanted to write, and the next verb is not tried before a pause is over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import connections
from django.db.utils import InterfaceError, OperationalError

logger = logging.getLogger("dayfly.worker")

FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 5.0

T = TypeVar("T")


class DatabaseAway(Exception):
    """The database cannot be reached now. What was to be written is still in memory."""


class Store:
    """Calls verbs on one database, and notices when it goes and comes back."""

    def __init__(
        self, using: str, *, on_return: Callable[[], None], on_reopen: Callable[[], None]
    ) -> None:
        """
        *on_return* is called on each new connection, before any other verb.

        *on_reopen* instead, when the connection had been closed by `part_from_sqlite`: nothing can
        have been lost then.
        """
        self.using = using
        self._on_return = on_return
        self._on_reopen = on_reopen
        self._is_connected = False
        self._has_parted = False
        self._away_since: float | None = None
        self._pause = FIRST_PAUSE_SECONDS
        self._next_try = 0.0

    def call(self, verb: Callable[[], T]) -> T:
        """
        Call *verb* and return what it returns.

        Raises:
            DatabaseAway: the connection failed, now or a moment ago. Whether the verb took
                effect is unknown: verbs may be repeated.
        """
        if time.monotonic() < self._next_try:
            raise DatabaseAway
        try:
            self._connect()
            return verb()
        except (OperationalError, InterfaceError) as error:
            self._lose(error)
            raise DatabaseAway from error

    @property
    def is_away(self) -> bool:
        """Whether the last verb failed for want of a database."""
        return self._away_since is not None

    def seconds_to_next_try(self) -> float | None:
        """Return how long until the database is tried again; None when it is there."""
        return max(self._next_try - time.monotonic(), 0.0) if self.is_away else None

    def part_from_sqlite(self) -> None:
        """
        Close connections to SQLite; the next verb opens ours again. Call it before each fork.

        SQLite keeps the locks of all connections of a process in one place of its own memory. A child
        with a copy of that believes to hold locks that it does not hold, also on connections that it
        opens itself, and writes to the file beside other writers. Source: sqlite.org/howtocorrupt.html,
        "Carrying an open database connection across a fork()".
        """
        for connection in connections.all(initialized_only=True):
            if connection.vendor == "sqlite" and connection.connection is not None:
                self._has_parted = self._has_parted or connection.alias == self.using
                keep_write_ahead_log(connection.connection)
                connection.close()

    def _connect(self) -> None:
        connection = connections[self.using]
        if self._is_connected and connection.connection is not None:
            return
        is_reopening = self._is_connected and self._has_parted
        connection.ensure_connection()
        # The parent's connection is its own for good: no age ends it.
        connection.close_at = None
        self._is_connected = True
        self._has_parted = False
        if is_reopening:
            self._on_reopen()
            return
        self._on_return()
        if self._away_since is not None:
            gone = time.monotonic() - self._away_since
            logger.warning("The database is back after %.1f s. database=%s", gone, self.using)
        self._away_since = None
        self._pause = FIRST_PAUSE_SECONDS

    def _lose(self, error: Exception) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            logger.warning(
                "The database cannot be reached: %s. Outcomes are kept and written when it is back."
                " database=%s",
                str(error).strip(),
                self.using,
            )
        self._is_connected = False
        self._has_parted = False
        self._next_try = now + self._pause
        self._pause = min(self._pause * 2, MAX_PAUSE_SECONDS)
        try:
            connections[self.using].close()
        except (OperationalError, InterfaceError):
            connections[self.using].connection = None  # it was broken already


def keep_write_ahead_log(driver: Any) -> None:
    """Do without the checkpoint that the last connection makes when it closes: it costs two fsyncs."""
    if hasattr(driver, "setconfig"):  # Python 3.12 and later
        import sqlite3  # here, as workers on other databases need not load it

        driver.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
