"""One contract for the pools, on every launcher that they accept: values, deaths, cancelling, limits, the end."""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from dayfly.executor import (
    AsyncExecutor,
    CallLost,
    CallNotSendable,
    CallOverMemory,
    CallStopped,
    CallTimedOut,
    CannotStart,
    ChildDied,
    ExecutorClosed,
    InitializerFailed,
    IsolatedExecutor,
    Limits,
    Outcome,
    RemoteTraceback,
    Terms,
)
from tests import calls
from tests.executor import pool_calls
from tests.helpers import alive, environment, eventually, footprint

LAUNCHERS = ("fork", "template", "spawn")
#: Those that know nothing of this process but its main program.
FRESH = ("template", "spawn")
Make = Callable[..., IsolatedExecutor]


@pytest.fixture(params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(launcher: str) -> Iterator[Make]:
    made: list[IsolatedExecutor] = []

    def make(max_workers: int = 2, *positional: Any, **options: Any) -> IsolatedExecutor:
        made.append(IsolatedExecutor(max_workers, *positional, launcher=launcher, **options))
        return made[-1]

    yield make
    for pool in made:
        pool.kill_workers()
        pool.shutdown()


# Values, exceptions, deaths


def test_value_and_exception_come_back_with_their_reports(make: Make) -> None:
    pool = make(max_tasks_per_child=None)
    value = pool.submit(pool_calls.add, 1, right=2)
    printed = pool.submit(calls.prints, "heard")
    failed = pool.submit(pool_calls.raises_with_attributes)

    error = failed.exception(60)

    assert value.result(60) == 3
    assert isinstance(error, pool_calls.WithAttributes)
    assert (error.code, error.__notes__) == (42, ["a note"])  # type: ignore[attr-defined]
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in raises_with_attributes" in str(error.__cause__)
    assert "fresh.py" not in str(error.__cause__)
    assert printed.result(60) is None
    for future, outcome in (
        (value, Outcome.RETURNED),
        (printed, Outcome.RETURNED),
        (failed, Outcome.RAISED),
    ):
        assert future.report is not None
        assert future.report.outcome is outcome
        assert future.report.peak_rss_bytes is not None
        assert future.report.child_pid != os.getpid()
    assert printed.report is not None
    assert printed.report.output == b"heard"


def test_each_call_has_a_child_of_its_own(make: Make) -> None:
    pool = make()

    pids = {future.result(60) for future in [pool.submit(os.getpid) for _ in range(4)]}

    assert len(pids) == 4
    assert os.getpid() not in pids


def test_child_that_dies_fails_its_call_only(make: Make, tmp_path: Path) -> None:
    pool = make()
    neighbour = pool.submit(calls.waits_for, str(tmp_path / "go"))
    killed = pool.submit(calls.kills_itself)
    left = pool.submit(calls.os_exits, 7)
    waiting = pool.submit(pool_calls.add, 1)

    errors = [future.exception(60) for future in (killed, left)]
    (tmp_path / "go").touch()

    assert [type(error) for error in errors] == [ChildDied, ChildDied]
    assert "was killed by SIGKILL in tests.calls.kills_itself" in str(errors[0])
    assert "left with exit code 7" in str(errors[1])
    assert killed.report is not None
    assert killed.report.usage is not None
    assert neighbour.result(60) == str(tmp_path / "go")
    assert waiting.result(60) == 1


def test_limits_of_pool_and_call(make: Make) -> None:
    pool = make(time_limit=30, memory_limit=100_000_000)
    late = pool.submit_with(Limits(timeout_seconds=0.2), pool_calls.waits_forever)
    large = pool.submit(calls.returns_bytes, 300_000_000)

    assert isinstance(late.exception(60), CallTimedOut)
    assert isinstance(large.exception(60), CallOverMemory | MemoryError)
    assert pool.submit(pool_calls.add, 1).result(60) == 1


# Cancelling


def test_running_call_is_cancelled_and_its_child_killed(make: Make, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    pool = make(1)
    running = pool.submit(calls.marks_and_waits_for, str(mark), str(tmp_path / "never"))
    waiting = pool.submit(calls.leave_mark, str(tmp_path / "ran"))
    eventually(mark.exists, within=60)

    assert waiting.cancel()
    assert running.cancel()

    with pytest.raises(CancelledError):
        running.result(0)
    eventually(lambda: not alive(int(mark.read_text())))
    assert pool.submit(pool_calls.add, 1).result(60) == 1
    assert not (tmp_path / "ran").exists()
    assert set(as_completed([running, waiting], 60)) == {running, waiting}


def test_call_whose_child_is_being_born_is_cancelled(make: Make) -> None:
    """With a fresh interpreter this is most of the time that a short call takes."""
    pool = make(1)
    first = pool.submit(pool_calls.waits_forever)
    eventually(lambda: first.running(), within=60)

    first.cancel()

    assert wait([first], 60).done == {first}
    assert pool.submit(pool_calls.add, 1).result(60) == 1


# map


def test_map_yields_in_order_and_runs_a_chunk_as_one_call(make: Make) -> None:
    pool = make()

    assert list(pool.map(pow, range(10), itertools.repeat(2), chunksize=4)) == [
        number * number for number in range(10)
    ]
    assert len(set(pool.map(pool_calls.pid_of, range(10), chunksize=5))) == 2


def test_map_gives_up_in_time_and_raises_what_was_raised(make: Make, tmp_path: Path) -> None:
    pool = make(max_tasks_per_child=None)
    pool.submit(pool_calls.add, 1).result(60)  # so that the pool's start is not timed
    go = str(tmp_path / "go")
    values = pool.map(pool_calls.waits_for_if, [go], timeout=0.3)

    with pytest.raises(TimeoutError):
        next(values)
    Path(go).touch()
    quotients = pool.map(divmod, [1, 1], [1, 0])
    assert next(quotients) == (1, 0)
    with pytest.raises(ZeroDivisionError):
        next(quotients)


# The initializer


def test_initializer_runs_once_in_each_child(make: Make) -> None:
    pool = make(1, None, pool_calls.initialize, ("a", 2), max_tasks_per_child=2)

    found = [pool.submit(pool_calls.what_was_initialized).result(60) for _ in range(4)]

    assert [values for _, values in found] == [["a", 2]] * 4
    assert len({pid for pid, _ in found}) == 2
    assert pool_calls.initialized_with == []


def test_failed_initializer_breaks_the_pool(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make(2, None, pool_calls.fails_to_initialize, (str(tmp_path / "log"),))
    futures = [pool.submit(pool_calls.add, number) for number in range(3)]

    for future in futures:
        with pytest.raises(InitializerFailed, match="initializer of this pool failed"):
            future.result(60)
    with pytest.raises(BrokenProcessPool):
        pool.submit(pool_calls.add, 1)
    assert "no such model" in caplog.text


@pytest.mark.parametrize("launcher", FRESH)
def test_initializer_that_cannot_be_told_is_refused_at_once(launcher: str) -> None:
    """Not in the thread of the pool, where it would break the pool some time later."""
    with pytest.raises(CannotStart, match="module level"):
        IsolatedExecutor(1, initializer=lambda: None, launcher=launcher)
    with pytest.raises(CannotStart, match="module level"):
        AsyncExecutor(1, launcher=launcher, terms=Terms(before_exit=(lambda: None,)))


def test_start_that_fails_leaves_nothing_and_can_be_tried_again(
    launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses() -> None:
        raise OSError(24, "Too many open files")

    before = footprint()
    pool = IsolatedExecutor(1, launcher=launcher)
    with monkeypatch.context() as patch:
        patch.setattr(select, "epoll", refuses)
        with pytest.raises(OSError, match="Too many"):
            pool.submit(pool_calls.add, 1)
        assert footprint() == before

    with pool:
        assert pool.submit(pool_calls.add, 1).result(60) == 1


# The main program


GUARDED = """
    import sys
    from dayfly.executor import IsolatedExecutor

    known = []

    def note(value):
        known.append(value)

    class Point:
        def __init__(self, x):
            self.x = x

    class Odd(Exception):
        pass

    def make(x):
        return Point(x + len(known))

    def fails():
        raise Odd("odd")

    if __name__ == "__main__":
        with IsolatedExecutor(1, initializer=note, initargs=(1,), launcher=sys.argv[1]) as pool:
            point = pool.submit(make, 1).result(60)
            error = pool.submit(fails).exception(60)
        print(type(point) is Point, point.x, type(error) is Odd)
"""


@pytest.mark.parametrize("launcher", FRESH)
def test_functions_and_classes_of_the_main_program_are_known(launcher: str, tmp_path: Path) -> None:
    """Its initializer, too: it is unpickled after the program was imported."""
    assert run_program(tmp_path, GUARDED, launcher) == ("True 2 True\n", "")


UNGUARDED = """
    import logging, sys
    from dayfly.executor import IsolatedExecutor

    def double(number):
        return 2 * number

    print("once")
    with IsolatedExecutor(1, launcher=sys.argv[1]) as pool:
        future = pool.submit(double, 2)
        error = future.exception(60)
        print(error and future.report.output.decode() or future.result())
"""


def test_main_program_without_a_guard_is_named_and_a_copy_serves(tmp_path: Path) -> None:
    out, errors = run_program(tmp_path, UNGUARDED, "template")

    assert out.split() == ["once", "once", "4"]  # the template has imported it, too
    assert 'if __name__ == "__main__":' in errors


def test_main_program_without_a_guard_fails_a_spawned_call(tmp_path: Path) -> None:
    out, _ = run_program(tmp_path, UNGUARDED, "spawn")

    assert out.startswith("once\n")
    assert 'if __name__ == "__main__":' in out


def run_program(directory: Path, text: str, *arguments: str) -> tuple[str, str]:
    script = directory / "program.py"
    script.write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), *arguments],
        env=environment(PYTHONUNBUFFERED=""),  # with buffers, as most programs run
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr


# What cannot cross


def test_lambda_and_closure_are_carried_by_cloudpickle(make: Make) -> None:
    pytest.importorskip("cloudpickle")
    pool = make(max_tasks_per_child=None)
    factor = 3

    assert pool.submit(lambda number: number * factor, 2).result(60) == 6
    assert list(pool.map(lambda number: number * factor, range(3), chunksize=2)) == [0, 3, 6]


def test_lambda_without_cloudpickle_says_what_carries_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    pool = make()

    error = pool.submit(lambda: None).exception(60)

    assert isinstance(error, CallNotSendable)
    assert "once cloudpickle is installed" in str(error)


@pytest.fixture
def only_here(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that is nowhere on disk."""
    module = types.ModuleType("known_to_this_process")
    exec("def answer():\n    return 42", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_copy_knows_what_was_defined_here(only_here: types.ModuleType) -> None:
    with IsolatedExecutor(1, launcher="fork") as pool:
        assert pool.submit(only_here.answer).result(60) == 42


@pytest.mark.parametrize("launcher", FRESH)
def test_function_that_only_this_process_knows_is_a_clear_error(
    launcher: str, only_here: types.ModuleType
) -> None:
    with IsolatedExecutor(1, launcher=launcher) as pool:
        error = pool.submit(only_here.answer).exception(60)

        assert isinstance(error, CallNotSendable)
        assert "cannot be loaded in the child: ModuleNotFoundError" in str(error)
        assert pool.submit(pool_calls.add, 1).result(60) == 1


# The end


def test_shutdown_finishes_what_waits_and_leaves_nothing(launcher: str) -> None:
    before = footprint()
    pool = IsolatedExecutor(2, launcher=launcher, max_tasks_per_child=5)
    futures = [pool.submit(pool_calls.add, number) for number in range(20)]

    pool.shutdown()

    assert [future.result(0) for future in futures] == list(range(20))
    assert footprint() == before
    with pytest.raises(ExecutorClosed):
        pool.submit(pool_calls.add, 1)


def test_shutdown_can_cancel_what_waits(make: Make, tmp_path: Path) -> None:
    pool = make(1)
    running = pool.submit(calls.marks_and_waits_for, str(tmp_path / "mark"), str(tmp_path / "go"))
    waiting = [pool.submit(pool_calls.add, number) for number in range(3)]
    eventually((tmp_path / "mark").exists, within=60)

    pool.shutdown(wait=False, cancel_futures=True)
    assert wait(waiting, 60).not_done == set()
    (tmp_path / "go").touch()
    pool.shutdown()

    assert all(future.cancelled() for future in waiting)
    assert running.exception(0) is None


def test_killing_the_workers_ends_what_runs(make: Make, tmp_path: Path) -> None:
    pool = make(1)
    running = pool.submit(pool_calls.marks_and_waits, str(tmp_path / "mark"))
    waiting = pool.submit(pool_calls.add, 1)
    eventually((tmp_path / "mark").exists, within=60)

    pool.kill_workers()
    pool.shutdown()

    assert isinstance(running.exception(0), CallStopped)
    assert waiting.cancelled()


def test_shutdown_at_once_leaves_nothing(launcher: str) -> None:
    """Before the template has loaded anything, or the first interpreter has come up."""
    before = footprint()
    pool = IsolatedExecutor(2, launcher=launcher)
    futures = [pool.submit(pool_calls.add, number) for number in range(3)]

    pool.kill_workers()
    pool.shutdown()

    assert footprint() == before
    for future in futures:
        assert (
            future.cancelled()
            or isinstance(future.exception(0), CallLost)
            or not future.exception(0)
        )


# Others of the world


def test_pool_that_is_used_from_several_threads(make: Make) -> None:
    pool = make(max_tasks_per_child=50)

    def use(start: int) -> list[int]:
        return list(pool.map(pool_calls.add, range(start, start + 5)))

    with ThreadPoolExecutor(4) as users:
        found = list(users.map(use, range(0, 40, 5)))

    assert list(itertools.chain(*found)) == list(range(40))


def test_pool_started_by_a_thread_outlives_it(make: Make) -> None:
    """The kernel ends a child with the thread that forked it, if it was told to."""
    pool = make(1, max_tasks_per_child=None)
    thread = threading.Thread(target=lambda: pool.submit(pool_calls.add, 1).result(60))
    thread.start()
    thread.join()

    assert pool.submit(pool_calls.add, 2).result(60) == 2


def test_asyncio_can_use_the_pool(make: Make) -> None:
    pool = make()

    async def main() -> tuple[int, bool]:
        loop = asyncio.get_running_loop()
        value = await loop.run_in_executor(pool, pool_calls.add, 1, 2)
        task = loop.run_in_executor(pool, pool_calls.waits_forever)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return value, task.cancelled()

    assert asyncio.run(main()) == (3, True)


# AsyncExecutor


def test_asynchronous_calls_return_raise_and_die(launcher: str) -> None:
    async def main() -> None:
        async with AsyncExecutor(2, launcher=launcher) as executor:
            values = await asyncio.gather(*[executor.run(pool_calls.add, n) for n in range(3)])
            assert values == [0, 1, 2]
            with pytest.raises(ValueError, match="no luck") as caught:
                await executor.run(calls.raises)
            assert isinstance(caught.value.__cause__, RemoteTraceback)
            with pytest.raises(ChildDied, match="SIGKILL") as died:
                await executor.run(calls.kills_itself)
            assert died.value.report is not None
            limits = Limits(timeout_seconds=0.2)
            with pytest.raises(CallTimedOut):
                await executor.run(pool_calls.waits_forever, limits=limits)

    before = footprint()
    asyncio.run(main())
    assert footprint() == before


def test_cancelled_task_ends_its_child(launcher: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    async def main() -> None:
        async with AsyncExecutor(1, launcher=launcher) as executor:
            running = asyncio.create_task(executor.run(pool_calls.marks_and_waits, str(mark)))
            waiting = asyncio.create_task(executor.run(pool_calls.add, 1))
            async with asyncio.timeout(60):
                while not (mark.exists() and mark.read_text()):
                    await asyncio.sleep(0.01)
            waiting.cancel()
            running.cancel()
            await asyncio.wait([running, waiting])
            assert await executor.run(pool_calls.add, 2) == 2
        assert not alive(int(mark.read_text()))

    asyncio.run(main())


def test_leaving_by_an_exception_ends_the_calls(launcher: str) -> None:
    """Also while the first child is on its way."""

    async def main() -> list[BaseException | int]:
        executor = AsyncExecutor(1, launcher=launcher)
        works = (pool_calls.waits_forever, os.getpid)
        tasks = [asyncio.create_task(executor.run(work)) for work in works]

        async def leaves() -> None:
            async with executor:
                await asyncio.sleep(0)
                raise LookupError

        with pytest.raises(LookupError):
            await leaves()
        return await asyncio.gather(*tasks, return_exceptions=True)

    before = footprint()
    assert [type(each) for each in asyncio.run(main())] == [CallStopped, CallStopped]
    assert footprint() == before
