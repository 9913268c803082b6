"""
Parent side: which runs have their memory read in detail (MEMORY_DETAIL="auto").

To read USS and PSS takes the child a walk through all its page tables, at the start and at the
end of a run: 1.2 ms at 55 MB, six times what a task costs that does nothing in a child that
serves many.
"""

from __future__ import annotations

import time

#: In the long run no more than this, however many there are.
RUNS_PER_SECOND = 5
#: So many at once after a rest: a few tasks that start together are all read.
BURST = 10


class Sampler:
    """Picks all runs of a worker that has few, and some of one that has many."""

    def __init__(self) -> None:
        self._credit = float(BURST)
        self._since = time.monotonic()

    def picks_next(self) -> bool:
        """Tell whether the next run is one of those; ask once for each."""
        now = time.monotonic()
        self._credit = min(BURST, self._credit + (now - self._since) * RUNS_PER_SECOND)
        self._since = now
        if self._credit < 1:
            return False
        self._credit -= 1
        return True
