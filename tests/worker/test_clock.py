"""The database's clock, as told by the worker's own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from dayfly.worker.clock import RESOLUTION, DatabaseClock
from tests.worker.conftest import MORNING, Clock


@pytest.fixture
def ours(clock_of: Callable[[str], Clock]) -> Clock:
    """Give the machine's clock, which stands at 1,000 s."""
    return clock_of("dayfly.worker.clock")


@pytest.fixture
def clock(ours: Clock) -> DatabaseClock:
    """At 1,000 s of the machine's clock the database's shows nine."""
    return DatabaseClock(MORNING)


def ask(clock: DatabaseClock, ours: Clock, *, shows: float, seconds: float) -> None:
    """Note an answer that took *seconds*: the database's clock *shows* so much after nine."""
    asked_ns = ours.monotonic_ns()
    ours.now += seconds
    clock.note(MORNING + timedelta(seconds=shows), asked_ns=asked_ns)


def test_slow_answer_does_not_set_it_back(clock: DatabaseClock, ours: Clock) -> None:
    ours.now += 10
    before = clock.at(ours.monotonic_ns())

    ask(clock, ours, shows=10.2, seconds=3)

    assert clock.at(1_010_000_000_000) == before


def test_quick_answer_that_is_later_sets_it_forward(clock: DatabaseClock, ours: Clock) -> None:
    ask(clock, ours, shows=0.5, seconds=0.1)

    assert clock.at(ours.monotonic_ns()) == MORNING + timedelta(seconds=0.5)


def test_answer_from_before_sets_it_back(clock: DatabaseClock, ours: Clock) -> None:
    ours.now += 10

    ask(clock, ours, shows=9, seconds=0.1)

    assert clock.at(1_010_000_000_000) == MORNING + timedelta(seconds=9) + RESOLUTION


def test_later_moments_stay_later_while_answers_take_differently_long(
    clock: DatabaseClock, ours: Clock
) -> None:
    told = []
    for seconds in (0.5, 0.001, 0.3, 0.002, 2, 0.001):
        told.append(clock.at(ours.monotonic_ns()))
        # The database's clock goes like ours, and answers a thousandth of a second before the end.
        ask(clock, ours, shows=ours.now + seconds - 0.001 - 1_000, seconds=seconds)

    assert told == sorted(told)
