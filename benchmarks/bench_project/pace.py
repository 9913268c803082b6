"""The rhythm of the latency measurement, the same for every contender."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

#: Seconds between two jobs: the worker is idle again, and no multiple of a polling interval.
PAUSE_SECONDS = (0.2, 0.5)
#: How long the first job may take: the worker is starting.
START_SECONDS = 30


def enqueue_at_random_moments(add: Callable[[int], None], count: int, stamps: Path) -> list[int]:
    """
    Call *add* with 1..count; return the moments just before each call, in nanoseconds.

    Number 0 goes first and is not timed: its stamp says that the worker is up.
    """
    chance = random.Random(count)
    add(0)
    deadline = time.monotonic() + START_SECONDS
    while stamps.stat().st_size == 0:
        if time.monotonic() > deadline:
            message = f"the worker ran nothing within {START_SECONDS} s of its start"
            raise TimeoutError(message)
        time.sleep(0.01)
    moments = []
    for number in range(1, count + 1):
        time.sleep(chance.uniform(*PAUSE_SECONDS))
        moments.append(time.monotonic_ns())
        add(number)
    return moments
