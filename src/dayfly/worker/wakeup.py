"""
Parent side: when to look into the queue.

PostgreSQL tells by NOTIFY, SQLite by PRAGMA data_version, the others are asked. A look
at the regular interval is what correctness rests on; the rest only makes it sooner.
"""

from __future__ import annotations

import time

from django.db import connections

from dayfly.queue import NOTIFY_CHANNEL

#: The shortest pause between two looks of a worker that polls.
MIN_PAUSE_SECONDS = 0.01
#: How often SQLite is asked whether anything was committed, at most; one system call each.
DATA_VERSION_SECONDS = 0.05
#: Enqueueing processes send one NOTIFY per queue in 10 ms: after one, look once more.
ECHO_SECONDS = 0.02


def for_database(using: str, *, interval: float, notify: bool) -> Wakeup:
    """Return the way in which this database wakes a worker."""
    vendor = connections[using].vendor
    interval = max(interval, MIN_PAUSE_SECONDS)  # 0 is allowed, and means as often as makes sense
    if vendor == "postgresql" and notify:
        return Notifications(using, interval)
    if vendor == "sqlite":
        return DataVersion(using, interval)
    return Wakeup(using, interval)


class Wakeup:
    """Polling that adapts: soon after work was found, up to the interval when there is none."""

    def __init__(self, using: str, interval: float) -> None:
        self.using = using
        self.interval = interval
        self._pause = min(MIN_PAUSE_SECONDS, interval)
        self._next_look = 0.0

    def connect(self) -> None:
        """Get ready on a new connection."""

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when there may be work, if there is one."""
        return None

    def found(self, *, anything: bool) -> None:
        """Note what a look found; sets when the next one is due."""
        if anything:
            self._pause = min(MIN_PAUSE_SECONDS, self.interval)
            self._next_look = 0.0
        else:
            self._next_look = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, max(self.interval, MIN_PAUSE_SECONDS))

    def is_due(self) -> bool:
        """Tell whether to look now."""
        return time.monotonic() >= self._next_look

    def hurry(self, moment: float) -> None:
        """Look at *moment* at the latest (monotonic clock)."""
        self._next_look = min(self._next_look, moment)

    def seconds_to_next(self) -> float:
        """Return how long to wait at most."""
        return max(self._next_look - time.monotonic(), 0.0)


class DataVersion(Wakeup):
    """
    SQLite: a number that changes when another connection commits.

    Source: sqlite.org/pragma.html, data_version.
    """

    def __init__(self, using: str, interval: float) -> None:
        super().__init__(using, interval)
        self._seen: int | None = None
        self._next_full_look = 0.0

    def connect(self) -> None:
        """
        Forget the number: it means something within one connection only.

        And keep 64 KB of the file in memory in place of 2 MB, which are much beside a lean parent.
        """
        self._seen = None
        with connections[self.using].cursor() as cursor:
            cursor.execute("PRAGMA cache_size = -64")

    def found(self, *, anything: bool) -> None:
        """Note what a look found; the number is asked often, the queue at the interval."""
        now = time.monotonic()
        self._next_look = 0.0 if anything else now + min(DATA_VERSION_SECONDS, self.interval)
        self._next_full_look = 0.0 if anything else now + self.interval

    def is_due(self) -> bool:
        """Tell whether to look now: something was committed, or the interval has passed."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        if now >= self._next_full_look or self._has_changed():
            return True
        self._next_look = now + min(DATA_VERSION_SECONDS, self.interval)
        return False

    def hurry(self, moment: float) -> None:
        """Look at *moment* at the latest."""
        super().hurry(moment)
        self._next_full_look = min(self._next_full_look, moment)

    def _has_changed(self) -> bool:
        with connections[self.using].cursor() as cursor:
            cursor.execute("PRAGMA data_version")
            version = cursor.fetchone()[0]
        changed = bool(version != self._seen)
        self._seen = version
        return changed


class Notifications(Wakeup):
    """PostgreSQL: LISTEN on the worker's own connection."""

    def __init__(self, using: str, interval: float) -> None:
        super().__init__(using, interval)
        self._echo_at: float | None = None
        self._was_notified = False

    def connect(self) -> None:
        """Listen. Behind a transaction pooler nothing will arrive, and the interval remains."""
        with connections[self.using].cursor() as cursor:
            cursor.execute(f'LISTEN "{NOTIFY_CHANNEL}"')
        driver = connections[self.using].connection
        if hasattr(driver, "add_notify_handler"):
            # Notifications also come with the answers of other statements.
            driver.add_notify_handler(self._note)

    def fileno(self) -> int | None:
        """Return the connection's socket."""
        driver = connections[self.using].connection
        return None if driver is None or driver.closed else driver.fileno()

    def found(self, *, anything: bool) -> None:
        """Note what a look found; look again soon after a notification, then at the interval."""
        now = time.monotonic()
        if anything:
            self._next_look = 0.0
        elif self._echo_at is not None:
            self._next_look, self._echo_at = max(self._echo_at, now), None
        else:
            self._next_look = now + self.interval

    def is_due(self) -> bool:
        """Tell whether to look now."""
        self._read()
        if self._was_notified:
            self._was_notified = False
            self._next_look = 0.0
            self._echo_at = time.monotonic() + ECHO_SECONDS
        return super().is_due()

    def _note(self, notification: object) -> None:
        self._was_notified = True

    def _read(self) -> None:
        """Take what has arrived, without waiting."""
        wrapper = connections[self.using]
        driver = wrapper.connection
        if driver is None or driver.closed:
            return
        # The driver is asked directly: its errors become Django's here, or the store does not know them.
        with wrapper.wrap_database_errors:
            if hasattr(driver, "pgconn"):
                driver.pgconn.consume_input()
                while driver.pgconn.notifies():
                    self._was_notified = True
            else:  # psycopg2
                driver.poll()
                if driver.notifies:
                    driver.notifies.clear()
                    self._was_notified = True
