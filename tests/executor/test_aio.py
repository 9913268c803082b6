"""AsyncExecutor: calls that tasks of an event loop await."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from dayfly.executor import (
    AsyncExecutor,
    Call,
    CallNotSendable,
    CallRaised,
    CallStopped,
    CallTimedOut,
    ChildDied,
    ExecutorClosed,
    Limits,
    Outcome,
    PoolBroken,
    RemoteTraceback,
    RunReport,
    Terms,
    feeder,
    load_value,
)
from tests import calls
from tests.executor import pool_calls
from tests.helpers import alive, children_of, footprint, open_fds


async def until(condition: Any) -> None:
    """Wait until *condition* holds, in a loop that goes on meanwhile."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def test_calls_run_side_by_side_and_return() -> None:
    async def main() -> list[int]:
        async with AsyncExecutor(2) as executor:
            return await asyncio.gather(
                *[executor.run(pool_calls.add, n, right=1) for n in range(20)]
            )

    assert asyncio.run(main()) == list(range(1, 21))


def test_it_starts_no_thread_and_leaves_nothing() -> None:
    before = footprint()

    async def main() -> None:
        here = set(open_fds().values())
        async with AsyncExecutor(2, max_tasks_per_child=None) as executor:
            await executor.run(pool_calls.add, 1)
            assert footprint()[2] == []
        assert set(open_fds().values()) == here
        assert children_of() == before[0]

    asyncio.run(main())
    assert footprint() == before


def test_loop_goes_on_while_a_call_runs(tmp_path: Path) -> None:
    async def main() -> str:
        async with AsyncExecutor(1) as executor:
            task = asyncio.create_task(executor.run(calls.waits_for, str(tmp_path / "go")))
            await asyncio.sleep(0.05)
            assert not task.done()
            (tmp_path / "go").touch()
            return await task

    assert asyncio.run(main()) == str(tmp_path / "go")


def test_exceptions_come_back_with_their_traceback() -> None:
    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            with pytest.raises(ValueError, match="no luck") as caught:
                await executor.run(calls.raises)
            assert isinstance(caught.value.__cause__, RemoteTraceback)
            with pytest.raises(ChildDied, match="SIGKILL") as died:
                await executor.run(calls.kills_itself)
            assert died.value.report is not None
            with pytest.raises(CallNotSendable):
                await executor.run(calls.returns, (letter for letter in "ab"))
            assert await executor.run(pool_calls.add, 1) == 1

    asyncio.run(main())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_exit_of_a_child_does_not_end_the_loop(kind: type[BaseException]) -> None:
    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            with pytest.raises(CallRaised, match=kind.__name__) as caught:
                await executor.run(pool_calls.raises_kind, kind)
            assert isinstance(caught.value.__cause__, RemoteTraceback)

    asyncio.run(main())


def test_time_limits_of_executor_and_call() -> None:
    async def main() -> None:
        async with AsyncExecutor(2, time_limit=0.5) as executor:
            with pytest.raises(CallTimedOut, match=r"0\.5 s"):
                await executor.run(pool_calls.waits_forever)
            with pytest.raises(TimeoutError, match=r"0\.3 s"):
                await executor.run(pool_calls.waits_forever, limits=Limits(timeout_seconds=0.3))

    asyncio.run(main())


def test_limits_of_terms_hold_where_no_others_are_given() -> None:
    async def main() -> None:
        terms = Terms(limits=Limits(timeout_seconds=0.3))
        async with AsyncExecutor(1, terms=terms) as executor:
            with pytest.raises(CallTimedOut, match=r"0\.3 s"):
                await executor.run(pool_calls.waits_forever)

    asyncio.run(main())


def test_limits_of_the_executor_hold_for_a_call_that_brings_none() -> None:
    async def main() -> None:
        async with AsyncExecutor(1, time_limit=0.3) as executor:
            report = await executor.run_call(Call.of(pool_calls.waits_forever))
            assert report.outcome is Outcome.TIMED_OUT

    asyncio.run(main())


def test_cancelling_a_task_kills_its_child(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            task = asyncio.create_task(executor.run(pool_calls.marks_and_waits, str(mark)))
            await until(lambda: mark.exists() and mark.read_text())
            pid = int(mark.read_text())
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not alive(pid))
            assert await executor.run(pool_calls.add, 2) == 2

    asyncio.run(main())


def test_timeout_of_asyncio_kills_the_child_too() -> None:
    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await executor.run(pool_calls.waits_forever)
            assert await executor.run(pool_calls.add, 2) == 2

    asyncio.run(main())


def test_call_that_waits_can_be_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            first = asyncio.create_task(executor.run(calls.waits_for, str(tmp_path / "go")))
            second = asyncio.create_task(executor.run(calls.leave_mark, str(tmp_path / "ran")))
            await asyncio.sleep(0.02)
            second.cancel()
            await asyncio.wait([second])
            (tmp_path / "go").touch()
            await first
            assert await executor.run(pool_calls.add, 1) == 1

    asyncio.run(main())
    assert not (tmp_path / "ran").exists()


def test_leaving_waits_for_the_calls(tmp_path: Path) -> None:
    async def main() -> str:
        async with AsyncExecutor(1) as executor:
            task = asyncio.create_task(executor.run(calls.waits_for, str(tmp_path / "go")))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.1, (tmp_path / "go").touch)
        assert task.done()
        return await task

    assert asyncio.run(main()) == str(tmp_path / "go")


def test_leaving_takes_a_turn_only_when_something_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[feeder.Feeder] = []
    take_turn = feeder.Feeder.turn

    def turn(one: feeder.Feeder) -> Any:
        turns.append(one)
        return take_turn(one)

    monkeypatch.setattr(feeder.Feeder, "turn", turn)

    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            task = asyncio.create_task(executor.run(calls.waits_for, str(tmp_path / "go")))
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.5, (tmp_path / "go").touch)
        await task

    asyncio.run(main())
    assert len(turns) < 50  # thousands, for a loop that asks again and again


def test_leaving_by_an_exception_ends_the_calls() -> None:
    async def main() -> None:
        executor = AsyncExecutor(1)
        tasks = []

        async def leaves() -> None:
            async with executor:
                for work in (pool_calls.waits_forever, pool_calls.add):
                    tasks.append(asyncio.create_task(executor.run(work, *[1] * len(tasks))))
                await asyncio.sleep(0.05)
                raise LookupError

        with pytest.raises(LookupError):
            await leaves()
        for task in tasks:
            with pytest.raises(CallStopped):
                await task
        with pytest.raises(ExecutorClosed):
            await executor.run(pool_calls.add, 1)
        await executor.aclose()

    asyncio.run(main())


def test_cancelled_while_leaving_it_kills(tmp_path: Path) -> None:
    async def main() -> None:
        executor = AsyncExecutor(1)
        task = asyncio.create_task(executor.run(calls.ignores_sigterm, str(tmp_path / "mark")))
        await until((tmp_path / "mark").exists)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await executor.aclose()
        with pytest.raises(CallStopped):
            await task
        assert children_of() == before

    before = children_of()
    asyncio.run(main())


def test_closing_may_turn_into_stopping_meanwhile() -> None:
    async def main() -> None:
        executor = AsyncExecutor(1)
        task = asyncio.create_task(executor.run(pool_calls.waits_forever))
        patient = asyncio.create_task(executor.aclose())
        await asyncio.sleep(0.05)
        assert not patient.done()

        await executor.aclose(stop=True)

        with pytest.raises(CallStopped):
            await task
        await patient

    asyncio.run(main())


def test_closing_ends_for_all_when_one_is_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        executor = AsyncExecutor(1)
        task = asyncio.create_task(executor.run(calls.ignores_sigterm, str(tmp_path / "mark")))
        await until((tmp_path / "mark").exists)
        patient = asyncio.create_task(executor.aclose())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await executor.aclose()
        with pytest.raises(CallStopped):
            await task
        await patient

    asyncio.run(main())


def test_report_of_a_call() -> None:
    async def main() -> None:
        async with AsyncExecutor(1) as executor:
            report = await executor.run_call(Call.of(calls.os_exits, 5))
            assert (report.outcome, report.exit_code) == (Outcome.EXITED, 5)

    asyncio.run(main())


def test_same_call_may_run_twice_at_a_time() -> None:
    call = Call.of(calls.returns, "a")

    async def main() -> list[RunReport]:
        async with AsyncExecutor(2) as executor:
            return await asyncio.gather(executor.run_call(call), executor.run_call(call))

    reports = asyncio.run(main())
    assert len({report.child_pid for report in reports}) == 2
    assert {(report.call_id, load_value(report)) for report in reports} == {(call.call_id, "a")}


def test_cancelled_call_may_run_again_while_its_child_still_lives(tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    call = Call.of(
        pool_calls.ignores_sigterm_the_first_time,
        str(mark),
        str(go),
        limits=Limits(grace_seconds=1000),
    )

    async def main() -> RunReport:
        async with AsyncExecutor(2) as executor:
            first = asyncio.create_task(executor.run_call(call))
            await until(mark.exists)
            first.cancel()
            await asyncio.wait([first])
            second = asyncio.create_task(executor.run_call(call))
            await asyncio.sleep(0)
            pid = int(mark.read_text())
            os.kill(pid, signal.SIGKILL)
            await until(lambda: not alive(pid))
            go.touch()
            return await second

    assert load_value(asyncio.run(main())) == "again"


def test_another_loop_is_refused() -> None:
    executor = AsyncExecutor(1)

    async def main() -> None:
        await executor.run(pool_calls.add, 1)
        with pytest.raises(ExecutorClosed, match="another event loop"):
            await asyncio.to_thread(asyncio.run, executor.run(pool_calls.add, 1))
        await executor.aclose()

    asyncio.run(main())


def test_child_can_have_an_event_loop_of_its_own() -> None:
    async def main() -> int:
        async with AsyncExecutor(1) as executor:
            return await executor.run(runs_a_loop)

    assert asyncio.run(main()) == 3


def runs_a_loop() -> int:
    async def inner() -> int:
        await asyncio.sleep(0)
        return 3

    return asyncio.run(inner())


def test_never_used_executor_costs_nothing() -> None:
    before = children_of(), open_fds()

    async def main() -> None:
        async with AsyncExecutor():
            pass

    asyncio.run(main())
    assert (children_of(), open_fds()) == before


def test_executor_that_nobody_closed_ends_its_calls_when_it_is_collected(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    async def main() -> None:
        executor = AsyncExecutor(1)
        task = asyncio.create_task(executor.run(calls.ignores_sigterm, str(mark)))
        await until(mark.exists)
        assert not task.done()

    def forgets_it() -> None:
        asyncio.run(main())
        gc.collect()

    before = footprint()
    with pytest.warns(ResourceWarning, match="AsyncExecutor was not closed"):
        forgets_it()
    assert not alive(int(mark.read_text()))
    assert footprint() == before


def test_failure_of_the_executor_reaches_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        executor = AsyncExecutor(1)
        running = asyncio.create_task(executor.run(pool_calls.waits_forever))
        waiting = asyncio.create_task(executor.run(pool_calls.add, 1))
        await asyncio.sleep(0.05)

        def fails(*_: object) -> None:
            raise MemoryError("none left")

        with monkeypatch.context() as patch:
            patch.setattr(feeder.Feeder, "turn", fails)
            third = asyncio.create_task(executor.run(pool_calls.add, 2))
            for task in (running, waiting, third):
                with pytest.raises(PoolBroken, match="MemoryError: none left"):
                    await task
        assert len(told) == 1
        await executor.aclose()

    asyncio.run(main())


def test_failure_while_closing_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        executor = AsyncExecutor(1)
        running = asyncio.create_task(executor.run(pool_calls.waits_forever))
        await asyncio.sleep(0.05)
        monkeypatch.setattr(feeder.Feeder, "turn", lambda one: calls.raises("none left"))

        await executor.aclose()

        with pytest.raises(PoolBroken, match="ValueError: none left"):
            await running

    asyncio.run(main())


def test_a_thousand_calls() -> None:
    async def main() -> list[int]:
        async with AsyncExecutor(2, max_tasks_per_child=100) as executor:
            return await asyncio.gather(*[executor.run(pool_calls.add, n) for n in range(1000)])

    assert asyncio.run(main()) == list(range(1000))
