"""
Parent side: when a template that still serves is replaced: at some age, or when it has grown.

It is looked at after it has forked, as one that nobody uses harms nobody, and its memory is
read once in some seconds. What replaces it may fail to load: then the next try waits, longer each time.
"""

from __future__ import annotations

import time

from dayfly.executor import memory
from dayfly.executor.source import Source

#: How often its memory is read at most; and how long the first pause after a failure is.
LOOK_SECONDS = 5.0
MAX_PAUSE_SECONDS = 600.0
#: One that grows at once is served from for so many times what it took to load.
LOADS_BEFORE_GROWTH = 10


class Wear:
    """What is known of the template that serves now."""

    def __init__(self, source: Source | None) -> None:
        self._max_age_seconds = source.max_age_seconds if source else None
        self._max_growth_bytes = source.max_growth_bytes if source else None
        self._is_used = False
        self._failures = 0
        self._not_before = 0.0
        self._begin = 0.0
        self._look_due = 0.0
        self._held_at_start: int | None = None

    def begin(self, pid: int, *, load_seconds: float) -> None:
        """Note that the template *pid* is ready, and serves from now on."""
        now = time.monotonic()
        self._is_used = False
        self._failures = 0
        self._not_before = 0.0
        self._begin = now
        self._look_due = now + max(LOOK_SECONDS, LOADS_BEFORE_GROWTH * load_seconds)
        if self._max_growth_bytes is not None:
            self._held_at_start = memory.held(pid)

    def note_use(self) -> None:
        """Note that it was asked for a child."""
        self._is_used = True

    def note_failure(self, now: float) -> None:
        """Note that what was to replace it could not be had: it serves on, for a while at least."""
        self._failures += 1
        self._not_before = now + min(LOOK_SECONDS * 2**self._failures, MAX_PAUSE_SECONDS)

    def reason(self, pid: int, now: float) -> str:
        """Say why the template *pid* should be replaced; "" while it should not."""
        # A use counts for this look only: else the children that a new template keeps on standby
        # would be the reason to replace it in turn, for ever, with nothing to do.
        is_used, self._is_used = self._is_used, False
        if not is_used or now < self._not_before:
            return ""
        age = now - self._begin
        if self._max_age_seconds is not None and age >= self._max_age_seconds:
            return f"it is {age:.0f} s old"
        if self._max_growth_bytes is None or now < self._look_due:
            return ""
        self._look_due = now + LOOK_SECONDS
        held = memory.held(pid)
        if held is None or self._held_at_start is None:
            return ""
        growth = held - self._held_at_start
        return f"it has grown by {growth} bytes" if growth > self._max_growth_bytes else ""
