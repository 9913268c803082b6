"""Requests to stop, by signal and by call."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dayfly.worker.stop import SIGNALS, StopRequests
from tests.helpers import open_fds


@pytest.fixture
def stop() -> Iterator[StopRequests]:
    requests = StopRequests()
    requests.listen()
    yield requests
    requests.close()


def is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_counts_as_a_request(stop: StopRequests, number: int) -> None:
    assert stop.count == 0
    os.kill(os.getpid(), number)
    assert stop.count == 1
    os.kill(os.getpid(), number)

    assert stop.count == 2


@pytest.mark.parametrize(
    ("number", "count"),
    [(signal.SIGHUP, 0), (signal.SIGINT, 0), (signal.SIGQUIT, 0), (signal.SIGTERM, 1)],
)
def test_signal_of_a_terminal_that_was_ignored_stays_ignored(number: int, count: int) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    requests = StopRequests()
    try:
        requests.listen()
        os.kill(os.getpid(), number)
        assert requests.count == count
        requests.close()
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_signal_wakes_whoever_waits(stop: StopRequests) -> None:
    assert not is_readable(stop.fileno())
    os.kill(os.getpid(), signal.SIGTERM)
    assert is_readable(stop.fileno())

    stop.drain()

    assert not is_readable(stop.fileno())
    assert stop.count == 1


def test_request_counts_without_a_signal() -> None:
    stop = StopRequests()
    stop.request()
    stop.close()

    assert stop.count == 1


def test_grace_counts_from_the_first_request(clock_of: Callable[[str], Any]) -> None:
    clock = clock_of("dayfly.worker.stop")
    stop = StopRequests()
    try:
        assert stop.seconds_left(5) is None
        stop.request()
        assert stop.seconds_left(None) is None
        clock.now += 3
        stop.request()
        assert stop.seconds_left(5) == 2
        clock.now += 3
        assert stop.seconds_left(5) == 0
    finally:
        stop.close()


def test_handlers_and_descriptors_are_put_back() -> None:
    before, descriptors = [signal.getsignal(number) for number in SIGNALS], open_fds()
    stop = StopRequests()
    stop.listen()
    assert [signal.getsignal(number) for number in SIGNALS] != before

    stop.close()

    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert open_fds() == descriptors


def test_second_signal_interrupts_a_task_that_runs_here(stop: StopRequests) -> None:
    stop.runs_task = lambda: True

    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)  # once: the next would come amid what follows

    assert stop.count == 3
