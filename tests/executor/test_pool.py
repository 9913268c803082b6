"""What `concurrent.futures` promises, kept by IsolatedExecutor."""

from __future__ import annotations

import asyncio
import gc
import itertools
import multiprocessing
import os
import pickle
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from pathlib import Path

import pytest

from dayfly.executor import (
    CallNotSendable,
    CallRaised,
    ExecutorClosed,
    IsolatedExecutor,
    RemoteTraceback,
)
from tests import calls
from tests.executor import pool_calls
from tests.helpers import children_of, eventually, footprint, run_script


@pytest.fixture
def pool() -> Iterator[IsolatedExecutor]:
    with IsolatedExecutor(max_workers=2) as one:
        yield one


# submit


def test_it_is_an_executor_and_returns_futures(pool: IsolatedExecutor) -> None:
    future = pool.submit(pool_calls.add, 1, right=2)

    assert isinstance(pool, Executor)
    assert isinstance(future, Future)
    assert future.result(60) == 3
    assert future.done()
    assert future.exception() is None


def test_keywords_of_the_function_are_its_own(pool: IsolatedExecutor) -> None:
    future = pool.submit(pool_calls.takes_limits, limits="a", fn="b", self="c")

    assert future.result(60) == ["a", "b", "c"]


def test_each_call_has_a_child_of_its_own(pool: IsolatedExecutor) -> None:
    pids = {future.result(60) for future in [pool.submit(os.getpid) for _ in range(6)]}

    assert len(pids) == 6
    assert os.getpid() not in pids


@pytest.mark.parametrize(("calls_per_child", "children"), [(3, 2), (None, 1)])
def test_child_serves_as_many_calls_as_it_may(calls_per_child: int | None, children: int) -> None:
    with IsolatedExecutor(1, max_tasks_per_child=calls_per_child) as pool:
        pids = [pool.submit(os.getpid).result(60) for _ in range(6)]

    assert len(set(pids)) == children


def test_method_partial_and_builtin_can_be_called(pool: IsolatedExecutor) -> None:
    assert pool.submit("abc".upper).result(60) == "ABC"
    assert pool.submit(calls.Adder(5), 1).result(60) == 6
    assert pool.submit(sum, [1, 2]).result(60) == 3


def test_exception_comes_back_with_its_traceback_as_cause(pool: IsolatedExecutor) -> None:
    error = pool.submit(calls.raises, "no customer").exception(60)

    assert type(error) is ValueError
    assert error.args == ("no customer",)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in raises" in str(error.__cause__)
    assert "raise ValueError(message)" in str(error.__cause__)


def test_exception_keeps_attributes_notes_and_parts(pool: IsolatedExecutor) -> None:
    error = pool.submit(pool_calls.raises_with_attributes).exception(60)
    group = pool.submit(pool_calls.raises_group).exception(60)

    assert isinstance(error, pool_calls.WithAttributes)
    assert (error.code, error.__notes__) == (42, ["a note"])  # type: ignore[attr-defined]
    assert isinstance(group, ExceptionGroup)
    assert [type(each) for each in group.exceptions] == [ValueError, TypeError]


def test_exits_of_the_interpreter_are_exceptions_of_the_call(pool: IsolatedExecutor) -> None:
    error = pool.submit(calls.sys_exits, 3).exception(60)

    assert isinstance(error, SystemExit)
    assert error.code == 3


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (pool_calls.raises_unspeakable, "it cannot be unpickled: TypeError"),
        (pool_calls.raises_not_picklable, "it cannot be pickled"),
        (
            pool_calls.raises_mute_when_unpickled,
            "Unspeakable: <tests.calls.Unspeakable: its message",
        ),
    ],
)
def test_exception_that_cannot_cross_is_told_by_its_text(
    pool: IsolatedExecutor, function: object, words: str
) -> None:
    error = pool.submit(function).exception(60)  # type: ignore[arg-type]

    assert isinstance(error, CallRaised)
    assert words in str(error)
    assert "tests.executor.pool_calls." in str(error)
    assert f"in {function.__name__}" in str(error.__cause__)  # type: ignore[attr-defined]
    assert pool.submit(pool_calls.add, 1).result(60) == 1


# What cannot cross: an error of that one call


def test_argument_that_cannot_be_pickled_fails_its_future_only(pool: IsolatedExecutor) -> None:
    future = pool.submit(calls.returns, (letter for letter in "ab"))

    assert future.done()
    with pytest.raises(CallNotSendable, match=r"tests\.calls\.returns cannot be sent"):
        future.result(0)
    assert isinstance(future.exception(), TypeError | pickle.PicklingError)
    assert pool.submit(calls.returns, 1).result(60) == 1


@pytest.mark.parametrize(
    ("function", "kind", "words"),
    [
        (calls.returns_lambda, CallNotSendable, "a function, cannot be sent back"),
        (pool_calls.returns_broken_value, RuntimeError, "cannot be unpickled here"),
        (pool_calls.returns_exiting_value, SystemExit, "3"),
    ],
)
def test_value_that_cannot_cross_fails_its_future_only(
    pool: IsolatedExecutor, function: object, kind: type[BaseException], words: str
) -> None:
    error = pool.submit(function).exception(60)  # type: ignore[arg-type]

    assert isinstance(error, kind)
    assert words in str(error)
    assert pool.submit(calls.returns, 1).result(60) == 1


def test_lambda_and_closure_are_carried_by_cloudpickle(pool: IsolatedExecutor) -> None:
    pytest.importorskip("cloudpickle")
    factor = 3

    assert pool.submit(lambda number: number * factor, 2).result(60) == 6
    assert list(pool.map(lambda number: number * factor, range(3), chunksize=2)) == [0, 3, 6]


def test_lambda_without_cloudpickle_says_what_carries_it(
    pool: IsolatedExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)

    error = pool.submit(lambda: None).exception(60)

    assert isinstance(error, CallNotSendable)
    assert "once cloudpickle is installed, or by `run`" in str(error)


def test_arguments_are_kept_no_longer_than_until_they_are_sent() -> None:
    """An idle pool whose children serve many calls holds what it held before."""
    found = run_script("""
        from dayfly.executor import IsolatedExecutor, memory

        with IsolatedExecutor(1, max_tasks_per_child=None) as pool:
            pool.submit(len, b"").result(60)
            before = memory.quick().anon_bytes
            assert pool.submit(len, bytes(50_000_000)).result(60) == 50_000_000
            print(memory.quick().anon_bytes - before)
    """)

    assert int(found) < 20_000_000


@pytest.mark.timeout(300)  # each is copied five times, on machines that are busy, too
def test_argument_and_value_of_100_megabytes_cross(pool: IsolatedExecutor) -> None:
    down = pool.submit(calls.length_of, bytes(100_000_000))
    up = pool.submit(calls.returns_bytes, 100_000_000)

    assert down.result(120) == 100_000_000
    assert len(up.result(120)) == 100_000_000
    # The report does not keep a second copy.
    assert up.report is not None
    assert up.report.value is None


# map


def test_map_yields_in_order(pool: IsolatedExecutor) -> None:
    assert list(pool.map(pow, range(10), itertools.repeat(2))) == [n * n for n in range(10)]
    assert list(pool.map(pow, [], [])) == []


@pytest.mark.parametrize("chunksize", [1, 3, 40, 1000])
def test_map_runs_a_chunk_as_one_call(pool: IsolatedExecutor, chunksize: int) -> None:
    pids = list(pool.map(pool_calls.pid_of, range(40), chunksize=chunksize))

    assert len(set(pids)) == -(-40 // chunksize)


def test_map_refuses_an_empty_chunk(pool: IsolatedExecutor) -> None:
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        pool.map(pow, [1], [1], chunksize=-1)


def test_map_raises_what_a_call_raised(pool: IsolatedExecutor) -> None:
    values = pool.map(divmod, [1, 1, 1], [1, 0, 1])

    assert next(values) == (1, 0)
    with pytest.raises(ZeroDivisionError):
        next(values)


def test_map_gives_up_in_time(pool: IsolatedExecutor, tmp_path: Path) -> None:
    path = str(tmp_path / "go")
    values = pool.map(pool_calls.waits_for_if, [None, path], timeout=3)

    assert next(values) is None
    with pytest.raises(TimeoutError):
        next(values)
    Path(path).touch()


def test_leaving_map_takes_back_what_waits_and_spares_what_runs(tmp_path: Path) -> None:
    with IsolatedExecutor(max_workers=1, standby=0) as pool:
        marks = [str(tmp_path / str(number)) for number in range(4)]
        go = str(tmp_path / "go")
        values = pool.map(calls.marks_and_waits_for, marks, itertools.repeat(go), timeout=0.01)
        eventually(Path(marks[0]).exists)
        with pytest.raises(TimeoutError):
            next(values)
        done = str(tmp_path / "done")
        last = pool.submit(calls.leave_mark, done)
        Path(go).touch()
        last.result(60)

    assert [Path(mark).exists() for mark in marks] == [True, False, False, False]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="buffersize came with Python 3.14")
def test_map_takes_no_more_than_its_buffer(pool: IsolatedExecutor) -> None:
    taken = itertools.count()
    values = pool.map(pool_calls.add, taken, buffersize=2)

    assert next(values) == 0
    assert next(taken) <= 4


# Futures


def test_pending_call_can_be_cancelled(tmp_path: Path) -> None:
    with IsolatedExecutor(max_workers=1) as pool:
        first = pool.submit(calls.waits_for, str(tmp_path / "go"))
        eventually(first.running)
        second = pool.submit(calls.leave_mark, str(tmp_path / "ran"))

        assert not second.running()
        assert second.cancel()
        assert second.cancel()
        assert second.cancelled()
        # At once, and not when its turn would have come.
        assert wait([second], timeout=60).done == {second}
        with pytest.raises(CancelledError):
            second.result(0)
        (tmp_path / "go").touch()
        first.result(60)

    assert not (tmp_path / "ran").exists()
    assert second.report is None


def test_finished_call_cannot_be_cancelled(pool: IsolatedExecutor) -> None:
    future = pool.submit(pool_calls.add, 1)
    future.result(60)

    assert not future.cancel()
    assert future.result() == 1


def test_waiting_for_futures(pool: IsolatedExecutor, tmp_path: Path) -> None:
    slow = pool.submit(calls.waits_for, str(tmp_path / "go"))
    quick = pool.submit(pool_calls.add, 1)

    first = wait([slow, quick], 60, FIRST_COMPLETED)
    assert (first.done, first.not_done) == ({quick}, {slow})
    bad = pool.submit(calls.raises)
    assert bad in wait([slow, bad], 60, FIRST_EXCEPTION).done
    (tmp_path / "go").touch()
    assert wait([slow, quick, bad], 60, ALL_COMPLETED).not_done == set()


def test_as_completed_yields_each_once_and_cancelled_ones_too(pool: IsolatedExecutor) -> None:
    futures = [pool.submit(pool_calls.add, number) for number in range(5)]
    endless = pool.submit(pool_calls.waits_forever)
    eventually(endless.running)
    endless.cancel()

    assert set(as_completed([*futures, endless], 60)) == {*futures, endless}


def test_callbacks_run_and_a_broken_one_harms_nobody(
    pool: IsolatedExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Future[int]] = []

    def leaves(future: Future[int]) -> None:
        seen.append(future)
        raise SystemExit(1)

    future = pool.submit(pool_calls.add, 1)
    future.add_done_callback(leaves)
    future.result(60)

    eventually(lambda: seen == [future])
    assert pool.submit(pool_calls.add, 2).result(60) == 2


def test_call_can_be_submitted_from_a_callback(pool: IsolatedExecutor) -> None:
    later: list[Future[int]] = []
    first = pool.submit(pool_calls.add, 1)
    first.add_done_callback(
        lambda done: later.append(pool.submit(pool_calls.add, done.result(), 1))
    )

    eventually(lambda: later)
    assert later[0].result(60) == 2


# Shutdown


def test_shutdown_finishes_what_waits_and_leaves_nothing() -> None:
    before = footprint()
    pool = IsolatedExecutor(max_workers=2)
    futures = [pool.submit(pool_calls.add, number) for number in range(20)]

    pool.shutdown()

    assert [future.result(0) for future in futures] == list(range(20))
    assert footprint() == before


def test_shutdown_can_cancel_what_waits(tmp_path: Path) -> None:
    pool = IsolatedExecutor(max_workers=1)
    running = pool.submit(calls.marks_and_waits_for, str(tmp_path / "mark"), str(tmp_path / "go"))
    waiting = [pool.submit(pool_calls.add, number) for number in range(10)]
    eventually((tmp_path / "mark").exists)

    pool.shutdown(wait=False, cancel_futures=True)
    assert wait(waiting, 60).not_done == set()
    (tmp_path / "go").touch()
    pool.shutdown()

    assert all(future.cancelled() for future in waiting)
    assert running.exception(0) is None


def test_shutdown_without_waiting_lets_calls_finish(tmp_path: Path) -> None:
    pool = IsolatedExecutor(max_workers=1)
    future = pool.submit(calls.waits_for, str(tmp_path / "go"))

    pool.shutdown(wait=False)

    assert not future.done()
    (tmp_path / "go").touch()
    future.result(60)


def test_closed_pool_refuses_calls(pool: IsolatedExecutor) -> None:
    pool.shutdown()
    pool.shutdown()

    with pytest.raises(RuntimeError, match="was shut down"):
        pool.submit(pool_calls.add, 1)
    with pytest.raises(ExecutorClosed):
        list(pool.map(pool_calls.add, [1]))


def test_pool_that_was_never_used_costs_nothing() -> None:
    before = footprint()
    pool = IsolatedExecutor(max_workers=2)

    assert footprint() == before
    pool.shutdown()


def test_shutdown_from_another_thread_and_from_a_callback(tmp_path: Path) -> None:
    pool = IsolatedExecutor(max_workers=1)
    future = pool.submit(calls.waits_for, str(tmp_path / "go"))
    future.add_done_callback(lambda done: pool.shutdown())
    thread = threading.Thread(target=pool.shutdown)
    thread.start()
    (tmp_path / "go").touch()

    thread.join(60)
    assert not thread.is_alive()
    assert future.done()


def test_workers_can_be_terminated_and_killed(tmp_path: Path) -> None:
    for end in (IsolatedExecutor.terminate_workers, IsolatedExecutor.kill_workers):
        pool = IsolatedExecutor(max_workers=1)
        running = pool.submit(pool_calls.waits_forever)
        waiting = pool.submit(pool_calls.add, 1)
        eventually(running.running)

        end(pool)
        pool.shutdown()

        assert "was stopped" in str(running.exception(0))
        assert waiting.cancelled()


# References


class Held:
    pass


def test_pool_that_nobody_holds_shuts_down() -> None:
    before = footprint()
    pool = IsolatedExecutor(max_workers=1, max_tasks_per_child=None)
    pool.submit(pool_calls.add, 1).result(60)
    held = weakref.ref(pool)

    del pool
    gc.collect()

    assert held() is None
    eventually(lambda: footprint() == before)


def test_calls_of_a_pool_that_nobody_holds_are_finished() -> None:
    futures = [IsolatedExecutor(max_workers=1).submit(pool_calls.add, n) for n in range(3)]

    assert [future.result(60) for future in futures] == [0, 1, 2]


def test_nothing_holds_arguments_values_exceptions_and_futures(pool: IsolatedExecutor) -> None:
    argument = Held()
    future = pool.submit(calls.returns, argument)
    value = future.result(60)
    failed = pool.submit(pool_calls.raises_with_attributes)
    error = failed.exception(60)
    assert error is not None
    assert value is not argument
    things = [weakref.ref(thing) for thing in (argument, value, future, failed, error)]

    del argument, value, future, failed, error

    # Without the collector: there is no cycle. The thread may be about to let go.
    eventually(lambda: [thing() for thing in things] == [None] * 5)


def test_map_keeps_no_value_that_was_taken(pool: IsolatedExecutor) -> None:
    values = pool.map(calls.returns, [Held() for _ in range(4)], chunksize=2)
    for value in values:
        held = weakref.ref(value)
        del value
        eventually(lambda held=held: held() is None)  # type: ignore[misc]


# Others of the world


def test_pool_can_be_used_from_eight_threads() -> None:
    with IsolatedExecutor(max_workers=2, max_tasks_per_child=50) as pool:

        def use(start: int) -> list[int]:
            return list(pool.map(pool_calls.add, range(start, start + 25)))

        with ThreadPoolExecutor(8) as users:
            found = list(users.map(use, range(0, 200, 25)))

    assert list(itertools.chain(*found)) == list(range(200))


def test_pool_started_by_a_thread_outlives_it() -> None:
    """The kernel ends a child with the thread that forked it, if it was told to."""
    with IsolatedExecutor(max_workers=1) as pool:
        thread = threading.Thread(target=lambda: pool.submit(pool_calls.add, 1).result(60))
        thread.start()
        thread.join()

        future = pool.submit(pool_calls.add, 2)

        assert future.result(60) == 2
        assert future.report is not None
        assert future.report.child_pid is not None


def test_asyncio_can_use_the_pool(pool: IsolatedExecutor) -> None:
    async def main() -> tuple[int, bool]:
        loop = asyncio.get_running_loop()
        value = await loop.run_in_executor(pool, pool_calls.add, 1, 2)
        task = loop.run_in_executor(pool, pool_calls.waits_forever)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return value, task.cancelled()

    assert asyncio.run(main()) == (3, True)


def test_child_can_have_a_pool_of_its_own(pool: IsolatedExecutor) -> None:
    assert pool.submit(pool_calls.uses_a_pool_of_its_own).result(30) == [0, 1, 2, 3]


def test_inherited_pool_refuses_calls_in_a_child() -> None:
    with IsolatedExecutor(max_workers=1) as pool:
        pool_calls.inherited_pool.append(pool)
        try:
            error = pool.submit(pool_calls.submits_to_inherited_pool).exception(60)
        finally:
            pool_calls.inherited_pool.clear()

    assert isinstance(error, ExecutorClosed)
    assert "make one of its own" in str(error)


def test_ten_thousand_calls_leave_nothing_behind() -> None:
    before = footprint()
    with IsolatedExecutor(max_workers=2, max_tasks_per_child=1000) as pool:
        futures = [pool.submit(pool_calls.add, number) for number in range(10_000)]
        assert [future.result(60) for future in futures] == list(range(10_000))
        eventually(lambda: len(children_of()) <= len(before[0]) + 1)  # the template

    assert footprint() == before


# Arguments of the constructor


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"max_workers": 0}, ValueError),
        ({"max_workers": -1}, ValueError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"max_tasks_per_child": 1.5}, TypeError),
        ({"initializer": 5}, TypeError),
        ({"launcher": "rocket"}, ValueError),
        ({"time_limit": 0}, ValueError),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        IsolatedExecutor(**arguments)  # type: ignore[arg-type]


def test_as_many_calls_run_as_there_are_cpus_by_default() -> None:
    assert IsolatedExecutor()._max_workers == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_context_of_multiprocessing_is_accepted(method: str) -> None:
    context = multiprocessing.get_context(method)

    with IsolatedExecutor(1, context) as pool:
        assert pool.submit(pool_calls.add, 1).result(60) == 1


# The initializer


@pytest.mark.parametrize(("calls_per_child", "children"), [(1, 4), (None, 1)])
def test_initializer_runs_once_in_each_child(calls_per_child: int | None, children: int) -> None:
    with IsolatedExecutor(
        1, None, pool_calls.initialize, ("a", 2), max_tasks_per_child=calls_per_child
    ) as pool:
        found = [pool.submit(pool_calls.what_was_initialized).result(60) for _ in range(4)]
        error = pool.submit(calls.raises).exception(60)

    assert [values for _, values in found] == [["a", 2]] * 4
    assert len({pid for pid, _ in found}) == children
    assert isinstance(error, ValueError)
    assert "run_initialized" not in str(error.__cause__)
    assert pool_calls.initialized_with == []


def test_initializer_may_be_a_closure() -> None:
    """It is inherited, and not pickled."""
    values: list[str] = []
    with IsolatedExecutor(1, initializer=lambda: pool_calls.initialize("closed", values)) as pool:
        _, found = pool.submit(pool_calls.what_was_initialized).result(60)

    assert found == ["closed", []]


def test_start_can_be_refused_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptors() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    with IsolatedExecutor(max_workers=1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pipe", no_descriptors)
            with pytest.raises(OSError, match="Too many"):
                pool.submit(pool_calls.add, 1)

        assert pool.submit(pool_calls.add, 1).result(60) == 1


def test_result_can_be_waited_for_in_vain(pool: IsolatedExecutor) -> None:
    future = pool.submit(pool_calls.waits_forever)
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        future.result(0.05)

    assert time.monotonic() - began < 10
    assert not future.done()
    future.cancel()
