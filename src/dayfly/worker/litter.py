"""Parent side: what would gather in the parent over a long life is thrown away."""

from __future__ import annotations

import gc

from django.db import connections

#: After so many runs the parent collects its garbage. CPython keeps up to 2,000 freed tuples of
#: each length for later use, and only a full collection lets go of them; left to itself, a heap
#: that is frozen sees one so rarely that the parent would grow by 1 MB before it stands still.
COLLECT_EVERY_RUNS = 100


class Litter:
    """Throws away; remembers when it last did."""

    def __init__(self) -> None:
        self._collected_at = 0

    def throw_away(self, *, runs: int) -> None:
        """Do what is due after so many *runs* in all; once in a turn of the loop."""
        for connection in connections.all(initialized_only=True):
            # With DEBUG Django keeps the last 9,000 statements, and with them outcomes and outputs.
            # Where it is made to, somebody counts them: a test of an inline worker, say.
            if not connection.force_debug_cursor:
                connection.queries_log.clear()
        if runs - self._collected_at >= COLLECT_EVERY_RUNS:
            gc.collect()  # of what was made since the start: the rest is frozen, and not looked at
            self._collected_at = runs
