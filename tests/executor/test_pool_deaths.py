"""Where IsolatedExecutor does better than the standard library: deaths, limits, cancelling what runs."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from dayfly.executor import (
    CallTimedOut,
    ChildDied,
    ExecutorError,
    Failure,
    InitializerFailed,
    IsolatedExecutor,
    Limits,
    Outcome,
    PoolBroken,
    RunReport,
    Terms,
    feeder,
    results,
)
from dayfly.executor.nursery import Nursery
from tests import calls
from tests.executor import pool_calls
from tests.helpers import alive, children_of, eventually


@pytest.fixture
def pool() -> Iterator[IsolatedExecutor]:
    with IsolatedExecutor(max_workers=2) as one:
        yield one


# Deaths


@pytest.mark.parametrize(
    ("ending", "outcome", "words"),
    [
        (calls.kills_itself, Outcome.KILLED, "was killed by SIGKILL in tests.calls.kills_itself"),
        (calls.segfaults, Outcome.KILLED, "SIGSEGV"),
        (calls.os_exits, Outcome.EXITED, "left with exit code 7"),
        (calls.sends_half_a_frame_and_dies, Outcome.KILLED, "killed by SIGKILL"),
        (calls.sends_garbage, Outcome.EXITED, "unusable"),
        (calls.closes_all_descriptors, Outcome.EXITED, "could not report"),
    ],
)
def test_child_that_dies_fails_its_call_only(
    pool: IsolatedExecutor, tmp_path: Path, ending: object, outcome: Outcome, words: str
) -> None:
    neighbour = pool.submit(calls.waits_for, str(tmp_path / "go"))
    eventually(neighbour.running)
    dying = pool.submit(ending)  # type: ignore[arg-type]
    waiting = [pool.submit(pool_calls.add, number) for number in range(3)]

    error = dying.exception(60)
    (tmp_path / "go").touch()

    assert isinstance(error, ChildDied)
    assert words in str(error)
    assert dying.report is not None
    assert dying.report.outcome is outcome
    assert error.report is dying.report or error.report == dying.report
    assert neighbour.result(60) == str(tmp_path / "go")
    assert [future.result(60) for future in waiting] == [0, 1, 2]


def test_death_is_caught_by_what_catches_that_of_the_standard_library() -> None:
    assert issubclass(ChildDied, BrokenProcessPool)
    assert issubclass(ChildDied, BrokenExecutor)
    assert issubclass(ChildDied, ExecutorError)
    assert issubclass(CallTimedOut, TimeoutError)
    assert not issubclass(CallTimedOut, BrokenExecutor)


def test_limit_that_a_call_met_as_an_exception_is_told_as_a_limit() -> None:
    """Whatever the function raised on its way out: the outcome says what it was."""
    failure = Failure(exception_class_path="a.B", message="b", traceback="in the task")
    report = RunReport(
        call_id="1",
        outcome=Outcome.TIMED_OUT,
        message="too long",
        failure=failure,
        dispatched_ns=0,
        finished_ns=0,
    )

    value, error = results.unpack(report)

    assert value is None
    assert isinstance(error, CallTimedOut)
    assert (str(error), error.report) == ("too long", report)
    assert "in the task" in str(error.__cause__)


def test_death_of_a_child_can_be_pickled(pool: IsolatedExecutor) -> None:
    error = pool.submit(calls.kills_itself).exception(60)

    copy = pickle.loads(pickle.dumps(error))

    assert isinstance(error, ChildDied)
    assert (type(copy), copy.args, copy.report) == (type(error), error.args, error.report)


def test_killed_template_fails_nothing_and_the_pool_goes_on(
    pool: IsolatedExecutor, tmp_path: Path
) -> None:
    others = children_of()
    mark, go = tmp_path / "mark", tmp_path / "go"
    running = pool.submit(calls.marks_and_waits_for, str(mark), str(go))
    eventually(mark.exists)
    (template,) = children_of() - others

    os.kill(template, signal.SIGKILL)
    go.touch()

    assert running.result(60) == int(mark.read_text())
    assert pool.submit(pool_calls.add, 2).result(60) == 2


def test_death_in_a_chunk_of_map_is_raised_there(pool: IsolatedExecutor) -> None:
    values = pool.map(pool_calls.dies_at, range(4), [1] * 4, chunksize=1)

    assert next(values) == 0
    with pytest.raises(BrokenProcessPool):
        next(values)


# The report


def test_future_carries_the_report_of_its_run(pool: IsolatedExecutor) -> None:
    future = pool.submit(calls.prints, "heard")
    future.result(60)

    report = future.report
    assert report is not None
    assert (report.outcome, report.output) == (Outcome.RETURNED, b"heard")
    assert report.peak_rss_bytes is not None
    assert report.value is None


def test_report_is_there_when_a_callback_runs(pool: IsolatedExecutor) -> None:
    seen: list[object] = []
    future = pool.submit(calls.raises)
    future.add_done_callback(lambda done: seen.append(done.report))  # type: ignore[attr-defined]
    future.exception(60)

    eventually(lambda: seen)
    assert seen == [future.report]
    assert future.report is not None
    assert future.report.outcome is Outcome.RAISED
    assert future.report.pickled_error is None


# Limits


def test_call_past_the_time_limit_of_the_pool_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with IsolatedExecutor(max_workers=1, time_limit=1.0) as pool:
        future = pool.submit(pool_calls.marks_and_waits, str(mark))
        error = future.exception(60)

        assert isinstance(error, CallTimedOut)
        assert "its time limit of 1 s" in str(error)
        assert error.report is not None
        assert error.report.outcome is Outcome.TIMED_OUT
        assert pool.submit(pool_calls.add, 1).result(60) == 1
    assert not alive(int(mark.read_text()))


def test_limits_of_one_call(pool: IsolatedExecutor) -> None:
    limits = Limits(timeout_seconds=0.3)

    with pytest.raises(TimeoutError):
        pool.submit_with(limits, pool_calls.waits_forever).result(60)
    found = pool.submit_with(Limits(timeout_seconds=30), pool_calls.takes_limits, limits="a")
    assert found.result(60) == ["a", "", ""]


def test_limits_of_the_pool_are_put_together() -> None:
    pool = IsolatedExecutor(limits=Limits(grace_seconds=1, timeout_seconds=9), time_limit=2)

    assert pool._limits == Limits(grace_seconds=1, timeout_seconds=2)


def test_limits_of_terms_hold_where_no_others_are_given() -> None:
    terms = Terms(limits=Limits(timeout_seconds=0.3, grace_seconds=1))

    with IsolatedExecutor(max_workers=1, terms=terms) as pool:
        error = pool.submit(pool_calls.waits_forever).exception(60)

    assert isinstance(error, CallTimedOut)
    assert IsolatedExecutor(terms=terms, time_limit=2)._limits == Limits(
        timeout_seconds=2, grace_seconds=1
    )
    assert IsolatedExecutor(terms=terms, limits=Limits())._limits == Limits()


# Cancelling what runs


def test_running_call_is_cancelled_at_once_and_its_child_killed(
    pool: IsolatedExecutor, tmp_path: Path
) -> None:
    future = pool.submit(pool_calls.marks_and_waits, str(tmp_path / "mark"))
    pid = int(eventually(lambda: (tmp_path / "mark").exists() and (tmp_path / "mark").read_text()))
    told: list[Future[object]] = []
    future.add_done_callback(told.append)

    assert future.running()
    assert future.cancel()

    assert future.cancelled()
    assert future.cancel()
    assert told == [future]
    assert wait([future], 60).done == {future}
    with pytest.raises(CancelledError):
        future.result(0)
    eventually(lambda: not alive(pid))
    eventually(lambda: future.report is not None)
    assert pool.submit(pool_calls.add, 1).result(60) == 1


def test_child_of_a_cancelled_call_is_ended_whatever_a_callback_does(
    pool: IsolatedExecutor, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    future = pool.submit(pool_calls.marks_and_waits, str(mark))
    pid = int(eventually(lambda: mark.exists() and mark.read_text()))
    future.add_done_callback(lambda done: sys.exit(3))

    with pytest.raises(SystemExit):
        future.cancel()

    eventually(lambda: not alive(pid))


def test_grace_of_a_cancelled_call_is_cut_short_by_killing_the_workers(tmp_path: Path) -> None:
    pool = IsolatedExecutor(max_workers=1, limits=Limits(grace_seconds=1000))
    future = pool.submit(calls.ignores_sigterm, str(tmp_path / "deaf"))
    eventually((tmp_path / "deaf").exists)
    future.cancel()

    pool.kill_workers()
    pool.shutdown()

    assert future.report is not None
    assert future.report.signal == signal.SIGKILL


def test_killing_the_workers_while_they_are_asked_to_leave_kills_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = IsolatedExecutor(max_workers=1, limits=Limits(grace_seconds=1000))
    future = pool.submit(calls.ignores_sigterm, str(tmp_path / "deaf"))
    eventually((tmp_path / "deaf").exists)
    stop = feeder.Feeder.stop

    def is_overtaken(one: feeder.Feeder, *, grace_seconds: float) -> None:
        stop(one, grace_seconds=grace_seconds)
        if grace_seconds:
            pool.kill_workers()

    monkeypatch.setattr(feeder.Feeder, "stop", is_overtaken)
    pool.terminate_workers()

    assert isinstance(future.exception(60), ChildDied)
    pool.shutdown()


def test_cancelled_call_keeps_its_slot_until_its_child_is_dead(tmp_path: Path) -> None:
    with IsolatedExecutor(max_workers=1, limits=Limits(grace_seconds=1.0)) as pool:
        first = pool.submit(calls.ignores_sigterm, str(tmp_path / "deaf"))
        eventually((tmp_path / "deaf").exists)
        pid = int((tmp_path / "deaf").read_text())
        second = pool.submit(pool_calls.still_there, pid)

        first.cancel()

        assert second.result(60) is False


def test_call_that_returns_as_it_is_cancelled_stays_cancelled(
    pool: IsolatedExecutor, tmp_path: Path
) -> None:
    future = pool.submit(calls.finishes_on_sigterm, str(tmp_path / "mark"))
    eventually((tmp_path / "mark").exists)

    future.cancel()

    eventually(lambda: future.report is not None)
    assert future.report is not None
    assert future.report.outcome is Outcome.RETURNED
    assert future.cancelled()


def test_cancel_races_with_the_end_a_hundred_times() -> None:
    with IsolatedExecutor(max_workers=2, max_tasks_per_child=10) as pool:
        futures = [pool.submit(pool_calls.add, number) for number in range(100)]
        threads = [
            threading.Thread(target=lambda part=part: [each.cancel() for each in part])  # type: ignore[misc]
            for part in (futures[::2], futures[::3])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wait(futures, 30).not_done == set()
        assert pool.submit(pool_calls.add, 1).result(60) == 1

    for number, future in enumerate(futures):
        assert future.cancelled() or future.result() == number


def test_call_that_no_child_can_have_yet_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses processes: the call has begun for its future, but no child has it."""
    with IsolatedExecutor(max_workers=1) as pool:
        pool.submit(pool_calls.add, 0).result(60)
        with monkeypatch.context() as patch:
            patch.setattr(Nursery, "spawn", lambda nursery: False)
            stuck = pool.submit(pool_calls.add, 1)
            eventually(stuck.running)
            assert stuck.cancel()
            assert wait([stuck], 60).done == {stuck}

        assert pool.submit(pool_calls.add, 2).result(60) == 2


# What breaks a pool


def test_failed_initializer_breaks_the_pool_and_fails_every_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log"
    with IsolatedExecutor(
        2, initializer=pool_calls.fails_to_initialize, initargs=(str(log),)
    ) as pool:
        futures = [pool.submit(pool_calls.add, number) for number in range(10)]

        for future in futures:
            with pytest.raises(BrokenProcessPool, match="initializer of this pool failed"):
                future.result(60)
        with pytest.raises(InitializerFailed):
            eventually(lambda: pool.submit(pool_calls.add, 1).cancelled())
    causes = [str(future.exception().__cause__) for future in futures]  # type: ignore[union-attr]
    assert any("no such model" in cause for cause in causes)
    assert "no such model" in caplog.text
    assert log.exists()


def test_initializer_that_kills_its_child_fails_one_call_after_the_other() -> None:
    with IsolatedExecutor(1, initializer=os._exit, initargs=(9,)) as pool:
        futures = [pool.submit(pool_calls.add, number) for number in range(2)]

        for future in futures:
            assert isinstance(future.exception(40), ChildDied)


def test_failure_of_the_thread_fails_every_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours, or a system without memory: nobody waits for ever."""
    with IsolatedExecutor(max_workers=1) as pool:
        running = pool.submit(pool_calls.waits_forever)
        waiting = pool.submit(pool_calls.add, 1)
        eventually(running.running)

        def fails(*_: object) -> None:
            raise MemoryError("none left")

        monkeypatch.setattr(feeder.Feeder, "turn", fails)
        running.cancel()

        with pytest.raises(PoolBroken, match=r"thread of this pool failed: MemoryError: none left"):
            waiting.result(60)
        with pytest.raises(BrokenProcessPool):
            eventually(lambda: pool.submit(pool_calls.add, 1).cancelled())
    assert "The thread of a pool failed" in caplog.text


def test_call_whose_end_cannot_be_told_breaks_the_pool_and_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fault of ours, with an exception that has no words for itself: its caller hears of it, too."""
    with IsolatedExecutor(max_workers=1) as pool:
        monkeypatch.setattr(results, "unpack", lambda report: calls.raises_unspeakable())
        futures = [pool.submit(pool_calls.add, number) for number in range(2)]

        for future in futures:
            with pytest.raises(PoolBroken, match="Unspeakable: its message cannot be shown"):
                future.result(60)
