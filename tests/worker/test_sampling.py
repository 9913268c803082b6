"""Which runs have their memory read in detail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dayfly.worker.sampling import BURST, RUNS_PER_SECOND, Sampler
from tests.worker.conftest import Clock


@pytest.fixture
def clock(clock_of: Callable[[str], Clock]) -> Clock:
    return clock_of("dayfly.worker.sampling")


def picked(sampler: Sampler, runs: int) -> int:
    return sum(sampler.picks_next() for _ in range(runs))


def test_runs_that_start_together_are_all_picked(clock: Clock) -> None:
    assert picked(Sampler(), BURST) == BURST


def test_few_runs_are_all_picked(clock: Clock) -> None:
    sampler = Sampler()

    for _ in range(100):
        clock.now += 1 / RUNS_PER_SECOND
        assert sampler.picks_next()


def test_many_runs_are_sampled(clock: Clock) -> None:
    sampler = Sampler()
    sampled = 0

    for _ in range(10_000):
        clock.now += 0.001
        sampled += sampler.picks_next()

    assert BURST + 10 * RUNS_PER_SECOND - 1 <= sampled <= BURST + 10 * RUNS_PER_SECOND


def test_rest_saves_up_no_more_than_a_burst(clock: Clock) -> None:
    sampler = Sampler()
    picked(sampler, BURST)
    clock.now += 3600

    assert picked(sampler, 10 * BURST) == BURST
