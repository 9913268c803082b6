"""
Parent side: the queue's verbs over a connection that may go away.

A database restart, a failover, a dropped connection, a table that is being altered: the verb
raises DatabaseAway, the caller keeps what it wanted to write, and the next verb is not tried
before a pause is over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import connections
from django.db.utils import Error

from dayfly.exceptions import DayflyError
from dayfly.queue.faults import Fault, fault_of

logger = logging.getLogger("dayfly.worker")

FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 5.0
#: Pauses begin anew when the database was there for so long. If it fails sooner, as a standby does
#: that takes connections and refuses to write, they grow on.
STEADY_SECONDS = 10.0

T = TypeVar("T")


class DatabaseAway(DayflyError):
    """The database cannot be used now. What was to be written is still in memory."""


class ConnectionBroke(DatabaseAway):
    """The same, and the connection broke under the statement, which may be the reason."""


class RowsLocked(DayflyError):
    """The database is there, but somebody else holds locks on what was to be written. Nothing was."""


class Store:
    """Calls verbs on one database, and notices when it goes and comes back."""

    def __init__(
        self,
        using: str,
        *,
        on_return: Callable[[], None],
        on_reopen: Callable[[], None],
        max_pause_seconds: float = MAX_PAUSE_SECONDS,
    ) -> None:
        """
        *on_return* is called on each new connection, before any other verb.

        *on_reopen* instead, when the connection had been closed by `part_from_sqlite`: nothing can
        have been lost then.
        """
        self.using = using
        #: Calls what connects, where paths that the settings give relative to a directory lead somewhere.
        self.connect_from: Callable[[Callable[[], None]], None] = lambda connect: connect()
        self._on_return = on_return
        self._on_reopen = on_reopen
        self._max_pause = max_pause_seconds
        self._is_connected = False
        self._has_parted = False
        self._away_since: float | None = None
        self._there_since = -STEADY_SECONDS
        self._said = ""
        self._pause = 0.0
        self._next_try = 0.0

    def call(
        self, verb: Callable[[], T], *, may_be_refused: bool = False, may_be_locked: bool = False
    ) -> T:
        """
        Call *verb* and return what it returns.

        Raises:
            DatabaseAway: it failed, now or a moment ago. Whether it took effect is unknown: verbs
                may be repeated.
            RowsLocked: only if it *may_be_locked*: somebody else holds what it wants to write.
            django.db.Error: only if it *may_be_refused*: the database refused a value in it, and
                would do so again.
        """
        if time.monotonic() < self._next_try:
            raise DatabaseAway("The database was tried a moment ago.")
        has_begun = False
        try:
            self._connect()
            has_begun = True
            result = verb()
        except Error as error:
            fault = fault_of(error)
            if has_begun and may_be_refused and fault is Fault.VALUE:
                self._hang_up_if_broken()
                raise
            if has_begun and may_be_locked and fault is Fault.LOCKED:
                raise RowsLocked(_sentence(error)) from error
            is_broken = has_begun and fault is Fault.BROKEN
            raise self._lose(error, ConnectionBroke if is_broken else DatabaseAway) from error
        self._welcome()
        return result

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
        self.connect_from(connection.ensure_connection)
        # The parent's connection is its own for good: no age ends it.
        connection.close_at = None
        self._is_connected = True
        self._has_parted = False
        if is_reopening:
            self._on_reopen()
            return
        self._on_return()

    def _welcome(self) -> None:
        """A verb was done: the database is there, not just a server that takes connections."""
        if self._away_since is None:
            return
        self._there_since = time.monotonic()
        gone = self._there_since - self._away_since
        logger.warning("The database is back after %.1f s. database=%s", gone, self.using)
        self._away_since = None
        self._said = ""

    def _lose(self, error: Error, kind: type[DatabaseAway]) -> DatabaseAway:
        now = time.monotonic()
        sentence = f"The database cannot be used: {_sentence(error)}."
        if self._away_since is None:
            if now - self._there_since >= STEADY_SECONDS:
                self._pause = 0.0
            self._away_since = now
        if sentence != self._said:  # a broken connection, then a standby: the reason may change
            self._said = sentence
            logger.warning(
                "%s Outcomes are kept and written when it is back. database=%s",
                sentence,
                self.using,
            )
        self._pause = min(max(self._pause * 2, FIRST_PAUSE_SECONDS), self._max_pause)
        self._next_try = now + self._pause
        self._hang_up()
        return kind(sentence)

    def _hang_up_if_broken(self) -> None:
        """MariaDB hangs up after a packet that is too large; the next verb shall not suffer for it."""
        if not connections[self.using].is_usable():
            self._hang_up()

    def _hang_up(self) -> None:
        self._is_connected = False
        self._has_parted = False
        try:
            connections[self.using].close()
        except Error:
            connections[self.using].connection = None  # it was broken already


def _sentence(error: Error) -> str:
    """Put what a driver says, often in several lines, into one."""
    return " ".join(str(error).split()).rstrip(".")


def keep_write_ahead_log(driver: Any) -> None:
    """Do without the checkpoint that the last connection makes when it closes: it costs two fsyncs."""
    if hasattr(driver, "setconfig"):  # Python 3.12 and later
        import sqlite3  # here, as workers on other databases need not load it

        driver.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
