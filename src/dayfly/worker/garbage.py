"""Parent side: its garbage is collected often, so that its memory stands still."""

from __future__ import annotations

import gc

#: After so many runs the parent collects its garbage. CPython keeps up to 2,000 freed tuples of
#: each length for later use, and only a full collection lets go of them; left to itself, a heap
#: that is frozen sees one so rarely that the parent would grow by 1 MB before it stands still.
EVERY_RUNS = 100


class Garbage:
    """Knows when it was collected last."""

    def __init__(self) -> None:
        self._collected_at = 0

    def collect_after(self, runs: int) -> None:
        """Collect it if there were many *runs* since the last time, counted from the start."""
        if runs - self._collected_at >= EVERY_RUNS:
            gc.collect()  # of what was made since the start: the rest is frozen, and not looked at
            self._collected_at = runs
