"""
Parent side: the memory of all running calls together. Pure decisions, no system call.

First come, first served, and nobody overtakes: a call that does not fit waits until it does,
and those behind it wait, too. Small ones that overtook could keep a large one waiting for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """What one running call takes up: what its caller expected of it, or what it was seen to hold."""

    estimate_bytes: int
    growth_bytes: int = 0

    @property
    def taken_bytes(self) -> int:
        """The larger of the two."""
        return max(self.estimate_bytes, self.growth_bytes)


@dataclass(frozen=True, slots=True)
class Budget:
    """
    A total for what calls hold beyond what their children do. None: no limit.

    Raises:
        ValueError: a total that is not above zero.
    """

    total_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.total_bytes is not None and self.total_bytes < 1:
            message = f"memory_budget_bytes={self.total_bytes!r}: give a whole number of bytes above 0, or None"
            raise ValueError(message)

    def admits(self, estimate_bytes: int, running: Iterable[Share]) -> bool:
        """
        Tell whether a call that expects *estimate_bytes* may start beside *running*.

        Alone, any call may, also one that is larger than the whole: else it would never run.
        """
        if self.total_bytes is None:
            return True
        shares = list(running)
        taken = sum(share.taken_bytes for share in shares)
        return not shares or taken + estimate_bytes <= self.total_bytes

    def is_too_small_for(self, estimate_bytes: int) -> bool:
        """Tell whether a call expects more than the whole."""
        return self.total_bytes is not None and estimate_bytes > self.total_bytes
