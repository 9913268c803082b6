"""`run` and `@isolated`: one function in a child of its own."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from dayfly.executor import (
    CallNotSendable,
    CallTimedOut,
    ChildDied,
    IsolatedExecutor,
    Limits,
    RemoteTraceback,
    Terms,
    carry,
    isolated,
    run,
)
from tests import calls
from tests.executor import pool_calls

changed: list[int] = []


@isolated
def adds_here(number: int) -> tuple[int, int]:
    """Change what only its own process sees."""
    changed.append(number)
    return os.getpid(), len(changed)


@isolated(time_limit=0.3)
def waits() -> None:
    pool_calls.waits_forever()


@isolated(limits=Limits(timeout_seconds=30))
def has_awkward_names(limits: int, function: int = 0, terms: int = 0) -> tuple[int, int, int]:
    return limits, function, terms


@isolated
def countdown(number: int) -> list[int]:
    return [os.getpid(), *(countdown(number - 1) if number else [])]


class Counter:
    def __init__(self) -> None:
        self.count = 5

    @isolated
    def pid_and_count(self, more: int) -> tuple[int, int]:
        self.count += more
        return os.getpid(), self.count


# run


def test_run_returns_the_value_of_a_child() -> None:
    assert run(pool_calls.add, 1, right=2) == 3
    assert run(os.getpid) != os.getpid()
    assert run(calls.returns) is None


def test_run_carries_whatever_the_host_holds() -> None:
    """The child inherits function and arguments: nothing is pickled on the way down."""
    lock, factor = threading.Lock(), 3
    items = (number for number in range(4))

    assert run(lambda each: [factor * number for number in each], items) == [0, 3, 6, 9]
    assert run(lambda held: held.locked(), lock) is False
    assert list(items) == [0, 1, 2, 3]
    assert carry.inherited == {}


def test_run_raises_what_the_function_raised() -> None:
    with pytest.raises(ValueError, match="no luck") as caught:
        run(calls.raises)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    with pytest.raises(ChildDied, match="exit code 7"):
        run(calls.os_exits)
    with pytest.raises(CallTimedOut):
        run(pool_calls.waits_forever, limits=Limits(timeout_seconds=0.2))
    with pytest.raises(CallNotSendable, match="cannot be sent back"):
        run(calls.returns_lambda)
    assert carry.inherited == {}


def test_limits_of_terms_hold_where_no_others_are_given() -> None:
    terms = Terms(limits=Limits(timeout_seconds=0.2))

    with pytest.raises(CallTimedOut):
        run(pool_calls.waits_forever, terms=terms)
    with pytest.raises(CallTimedOut, match=r"0\.3 s"):
        run(pool_calls.waits_forever, limits=Limits(timeout_seconds=0.3), terms=terms)


def test_run_raises_what_lets_nobody_set_an_attribute() -> None:
    with pytest.raises(calls.Sealed) as caught:
        run(calls.raises_sealed)
    assert "in raises_sealed" in str(caught.value.__cause__)


def test_run_can_be_used_in_a_thread() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(run(pool_calls.add, 1)))
    thread.start()
    thread.join(60)

    assert found == [1]


# @isolated


def test_isolated_function_runs_in_a_child_each_time() -> None:
    first, second = adds_here(1), adds_here(2)

    assert changed == []
    assert first[0] != second[0]
    assert (first[1], second[1]) == (1, 1)


def test_isolated_function_looks_like_the_function() -> None:
    assert adds_here.__name__ == "adds_here"
    assert adds_here.__doc__ == "Change what only its own process sees."
    assert adds_here.__wrapped__(7)[0] == os.getpid()
    assert "isolated" in repr(adds_here)
    changed.clear()


def test_limits_of_an_isolated_function() -> None:
    with pytest.raises(CallTimedOut, match=r"time limit of 0\.3 s in tests"):
        waits()
    assert has_awkward_names(1, function=2, terms=3) == (1, 2, 3)
    assert has_awkward_names(limits=4) == (4, 0, 0)


def test_isolated_function_is_pickled_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(adds_here)) is adds_here
    with IsolatedExecutor(max_workers=1) as pool:
        pid, length = pool.submit(adds_here, 1).result(60)
    assert (pid != os.getpid(), length) == (True, 1)


def test_isolated_method_runs_in_a_child() -> None:
    counter = Counter()

    pid, count = counter.pid_and_count(2)

    assert (pid != os.getpid(), count, counter.count) == (True, 7, 5)
    with IsolatedExecutor(max_workers=1) as pool:
        assert pool.submit(counter.pid_and_count, 3).result(60)[1] == 8


def test_isolated_function_can_call_itself() -> None:
    pids = countdown(3)

    assert len(set(pids)) == 4
    assert os.getpid() not in pids


def test_local_function_can_be_isolated() -> None:
    seen: list[int] = []

    @isolated
    def local(number: int) -> int:
        seen.append(number)
        return len(seen)

    assert (local(1), local(2), seen) == (1, 1, [])


def test_function_whose_call_does_nothing_is_refused() -> None:
    async def coroutine() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    async def asynchronous() -> AsyncIterator[int]:
        yield 1

    for function in (coroutine, generator, asynchronous):
        with pytest.raises(TypeError, match="coroutine or a generator function"):
            isolated(function)
