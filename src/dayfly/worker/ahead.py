"""
Parent side: how many jobs to claim ahead of free slots.

Claiming several at once shares round trips and commits, which short tasks need. A job
claimed ahead waits behind what runs here though others may be idle: so no more are
claimed ahead than will start within a moment, and one that waits longer goes back.
"""

from __future__ import annotations

import time

#: A job claimed ahead should start within this time.
HORIZON_SECONDS = 0.1
#: As long as nothing is claimed ahead, the pace is looked for after so long: a burst of short
#: tasks would else be over, or half so, before its worker has learnt that they are short.
FIRST_LOOK_SECONDS = 0.02
#: One that has waited so long for a slot is given back.
PATIENCE_SECONDS = 1.0


class LookAhead:
    """Learns from the pace of finished runs."""

    def __init__(self, *, concurrency: int, at_most: int) -> None:
        self._concurrency = concurrency
        self._at_most = at_most
        self._per_second = 0.0
        self._count = 0
        self._since = time.monotonic()
        self._waiting_since: float | None = None
        self._runs_started = 0

    def note_finished(self, count: int) -> None:
        """Count finished runs; the pace is that of the last tenth of a second."""
        self._count += count
        now = time.monotonic()
        elapsed = now - self._since
        if elapsed >= (HORIZON_SECONDS if self._ahead else FIRST_LOOK_SECONDS):
            self._per_second = self._count / elapsed
            self._count = 0
            self._since = now

    def wanted(self, *, running: int, waiting: int) -> int:
        """Return how many jobs to claim now; 0 when it is better to wait for a fuller batch."""
        ahead = self._ahead
        missing = self._concurrency + ahead - running - waiting
        has_free_slot = running + waiting < self._concurrency
        if missing <= 0 or (not has_free_slot and missing < (ahead + 1) // 2):
            return 0
        return missing

    @property
    def _ahead(self) -> int:
        return min(int(self._per_second * HORIZON_SECONDS), self._at_most)

    def lost_patience(self, *, waiting: int, runs_started: int) -> bool:
        """Tell whether the jobs that wait should go back: none has started for too long."""
        now = time.monotonic()
        if not waiting or runs_started != self._runs_started or self._waiting_since is None:
            self._runs_started = runs_started
            self._waiting_since = now if waiting else None
            return False
        if now - self._waiting_since < PATIENCE_SECONDS:
            return False
        self._waiting_since = None
        self._per_second = 0.0
        return True
