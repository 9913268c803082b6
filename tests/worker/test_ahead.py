"""How many jobs are claimed ahead of free slots."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dayfly.worker.ahead import (
    FIRST_LOOK_SECONDS,
    HORIZON_SECONDS,
    PATIENCE_SECONDS,
    LookAhead,
)
from tests.worker.conftest import Clock


@pytest.fixture
def clock(clock_of: Callable[[str], Clock]) -> Clock:
    return clock_of("dayfly.worker.ahead")


def at_pace(clock: Clock, per_second: float, *, at_most: int = 20) -> LookAhead:
    """Return one with two slots that has seen runs finish at this pace."""
    ahead = LookAhead(concurrency=2, at_most=at_most)
    clock.now += 1.0
    ahead.note_finished(round(per_second))
    return ahead


def test_at_first_only_free_slots_are_filled(clock: Clock) -> None:
    ahead = LookAhead(concurrency=2, at_most=20)

    assert ahead.wanted(running=0, waiting=0) == 2
    assert ahead.wanted(running=1, waiting=0) == 1
    assert ahead.wanted(running=1, waiting=1) == 0
    assert ahead.wanted(running=2, waiting=0) == 0


def test_no_more_are_claimed_than_start_within_the_horizon(clock: Clock) -> None:
    ahead = at_pace(clock, 100)

    assert ahead.wanted(running=0, waiting=0) == 2 + 100 * HORIZON_SECONDS


def test_slow_tasks_are_not_claimed_ahead(clock: Clock) -> None:
    assert at_pace(clock, 5).wanted(running=2, waiting=0) == 0


def test_option_bounds_what_is_claimed_ahead(clock: Clock) -> None:
    assert at_pace(clock, 10_000).wanted(running=2, waiting=0) == 20
    assert at_pace(clock, 10_000, at_most=0).wanted(running=2, waiting=0) == 0


def test_nearly_full_batch_waits_until_it_is_worth_a_round_trip(clock: Clock) -> None:
    ahead = at_pace(clock, 100)

    assert ahead.wanted(running=2, waiting=8) == 0
    assert ahead.wanted(running=2, waiting=4) == 6


def test_free_slot_is_filled_at_once(clock: Clock) -> None:
    assert at_pace(clock, 100).wanted(running=1, waiting=0) == 11


def test_pace_is_that_of_the_last_moment(clock: Clock) -> None:
    ahead = at_pace(clock, 100)
    clock.now += 10.0
    ahead.note_finished(1)

    assert ahead.wanted(running=2, waiting=0) == 0


def test_burst_after_a_rest_is_claimed_ahead_before_it_is_over(clock: Clock) -> None:
    """As a new worker's first jobs, too: it rested while it was started."""
    ahead = LookAhead(concurrency=2, at_most=20)
    clock.now += 10.0
    ahead.note_finished(1)
    assert ahead.wanted(running=2, waiting=0) == 0

    clock.now += FIRST_LOOK_SECONDS * 1.25
    ahead.note_finished(3)

    assert ahead.wanted(running=2, waiting=0) == 12


def test_pace_that_is_known_is_taken_over_the_whole_horizon(clock: Clock) -> None:
    """A pause of a moment is not the end of it."""
    ahead = at_pace(clock, 100)
    clock.now += HORIZON_SECONDS * 0.9
    ahead.note_finished(1)

    assert ahead.wanted(running=2, waiting=0) == 10


def test_patience_ends_when_nothing_starts(clock: Clock) -> None:
    ahead = at_pace(clock, 100)
    assert not ahead.lost_patience(waiting=5, runs_started=10)
    clock.now += PATIENCE_SECONDS * 0.9
    assert not ahead.lost_patience(waiting=5, runs_started=10)
    clock.now += PATIENCE_SECONDS * 0.2
    assert ahead.lost_patience(waiting=5, runs_started=10)

    # The pace was an illusion: nothing is claimed ahead on its account.
    assert ahead.wanted(running=2, waiting=0) == 0


def test_patience_begins_anew_with_each_start(clock: Clock) -> None:
    ahead = at_pace(clock, 100)
    for started in range(10):
        assert not ahead.lost_patience(waiting=5, runs_started=started)
        clock.now += PATIENCE_SECONDS * 0.9


def test_nobody_waits_nobody_is_impatient(clock: Clock) -> None:
    ahead = at_pace(clock, 100)
    for _ in range(5):
        assert not ahead.lost_patience(waiting=0, runs_started=1)
        clock.now += PATIENCE_SECONDS
