"""Parent side: the database's clock, told by our own."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

#: A clock that SQLite tells is cut off at the millisecond.
RESOLUTION = timedelta(milliseconds=1)


class DatabaseClock:
    """
    Turns CLOCK_MONOTONIC into the database's time.

    Rows of several machines can be compared, whatever the machines' own clocks say. An
    answer says what time it was at some moment between question and answer: the clock is
    set only where that proves it wrong. Set by each answer, it would jump by what the
    answers took, and runs would be recorded as if they had overtaken each other.
    """

    def __init__(self, database_now: datetime) -> None:
        self._zero_ns = time.monotonic_ns()
        # As early as an answer allows: later answers move it forward, if at all.
        self._zero = database_now

    def note(self, database_now: datetime, *, asked_ns: int) -> None:
        """Heed what the database said just now, to a question of *asked_ns* (CLOCK_MONOTONIC)."""
        earliest = database_now - self._since_zero(time.monotonic_ns())
        latest = database_now - self._since_zero(asked_ns) + RESOLUTION
        self._zero = min(max(self._zero, earliest), latest)

    def at(self, monotonic_ns: int) -> datetime:
        """Return the database's time at a moment of ours."""
        return self._zero + self._since_zero(monotonic_ns)

    def _since_zero(self, monotonic_ns: int) -> timedelta:
        return timedelta(microseconds=(monotonic_ns - self._zero_ns) / 1000)
