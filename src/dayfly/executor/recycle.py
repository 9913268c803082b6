"""
Parent side: when a child is replaced: after so many calls, at some age, or when it has grown.

A policy is an object with two questions; any object that answers them will do.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import Protocol

from dayfly.executor.outcome import RunReport

logger = logging.getLogger("dayfly.executor")


class RecyclePolicy(Protocol):
    """Decides when a child has served enough."""

    def calls_for_new_child(self) -> int | None:
        """Return the most calls that the next child may serve; None for no limit."""

    def keeps(self, report: RunReport) -> bool:
        """Tell, after a call of a child that may serve more, whether it should."""


def policy_calls(policy: RecyclePolicy) -> int | None:
    """Ask *policy*, which may be the host's own, in the middle of a birth that must not be lost."""
    try:
        return policy.calls_for_new_child()
    except Exception:
        logger.exception("The recycle policy failed: the child serves one call.")
        return 1


def policy_keeps(policy: RecyclePolicy, report: RunReport) -> bool:
    """Ask *policy*, which may be the host's own, in the middle of a report that must not be lost."""
    try:
        return policy.keeps(report)
    except Exception:
        logger.exception("The recycle policy failed: the child is replaced.")
        return False


@dataclass(frozen=True, slots=True)
class AfterCalls:
    """
    Replace a child after *calls* (0: never), plus up to *jitter* more, drawn for each child.

    Jitter keeps children that were born together from dying together.

    Raises:
        ValueError: a count below zero.
    """

    calls: int = 1
    jitter: int = 0

    def __post_init__(self) -> None:
        for name in ("calls", "jitter"):
            if getattr(self, name) < 0:
                message = f"{name}={getattr(self, name)!r}: give a whole number from 0 up"
                raise ValueError(message)

    def calls_for_new_child(self) -> int | None:
        """Return *calls* plus the jitter drawn for this child."""
        if self.calls == 0:
            return None
        return self.calls + (random.randint(0, self.jitter) if self.jitter else 0)

    def keeps(self, report: RunReport) -> bool:
        """Keep it: the count alone decides."""
        return True


@dataclass(frozen=True, slots=True)
class AfterGrowth:
    """
    Replace a child that holds *growth_bytes* more after a call than before its first one.

    Heap and stacks (RssAnon); pages that it shares with its parent and only rewrote do not count.

    Raises:
        ValueError: *growth_bytes* is not above zero.
    """

    growth_bytes: int

    def __post_init__(self) -> None:
        if self.growth_bytes < 1:
            message = f"growth_bytes={self.growth_bytes!r}: give a whole number of bytes above 0"
            raise ValueError(message)

    def calls_for_new_child(self) -> int | None:
        """Set no limit: growth alone decides."""
        return None

    def keeps(self, report: RunReport) -> bool:
        """Keep it while it has grown less."""
        return report.child_growth_bytes is None or report.child_growth_bytes < self.growth_bytes


@dataclass(frozen=True, slots=True)
class AfterAge:
    """
    Replace a child after the first call that ends *seconds* after its birth, or later.

    One that waits for a call is not looked at: it serves one more.

    Raises:
        ValueError: *seconds* is not above zero.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            message = f"seconds={self.seconds!r}: give seconds above 0"
            raise ValueError(message)

    def calls_for_new_child(self) -> int | None:
        """Set no limit: age alone decides."""
        return None

    def keeps(self, report: RunReport) -> bool:
        """Keep it while it is younger."""
        return report.child_age_seconds is None or report.child_age_seconds < self.seconds


class AnyOf:
    """Replace a child as soon as one of *policies* would."""

    def __init__(self, *policies: RecyclePolicy) -> None:
        self.policies = policies

    def calls_for_new_child(self) -> int | None:
        """Return the smallest of their counts."""
        counts = [policy.calls_for_new_child() for policy in self.policies]
        return min((count for count in counts if count is not None), default=None)

    def keeps(self, report: RunReport) -> bool:
        """Keep it while all of them do. Each is asked, as it may count."""
        answers = [policy.keeps(report) for policy in self.policies]
        return all(answers)
