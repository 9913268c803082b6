"""Time: soft and hard limits, of the clock and of the CPU, with real children that will not end."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from dayfly.executor import (
    AfterCalls,
    Call,
    Cause,
    Executor,
    Limits,
    Outcome,
    RunReport,
    SoftTimeLimitExceeded,
    Terms,
    load_value,
    run_call,
)
from dayfly.executor.child_codes import SOFT_SIGNAL
from tests import calls, limit_calls
from tests.helpers import alive, collect, eventually

#: What a loaded machine may add.
SLACK_SECONDS = 3.0


def seconds_of(report: RunReport) -> float:
    return (report.finished_ns - report.dispatched_ns) / 1e9


def punctual(call: Call, seconds: float) -> RunReport:
    """Run *call*, which must end when it should; again where the whole machine may have stood still."""
    for attempt in range(3):
        report = run_call(replace(call, call_id=f"{call.call_id}-{attempt}"))
        assert seconds_of(report) > seconds - 0.1
        if seconds_of(report) < seconds + SLACK_SECONDS:
            return report
    raise AssertionError(f"three times late: {seconds_of(report):g} s for {seconds:g} s")


def timed_out(report: RunReport, cause: Cause) -> None:
    assert (report.outcome, report.cause) == (Outcome.TIMED_OUT, cause), report.message


# Hard


@pytest.mark.parametrize("stuck", [limit_calls.computes_in_c, limit_calls.matches_in_c])
def test_call_stuck_in_c_code_is_ended_in_time(stuck: Callable[[], None]) -> None:
    """TERM has no handler in a child, so the kernel ends it wherever it is."""
    report = punctual(Call.of(stuck, limits=Limits(timeout_seconds=0.5)), 0.5)

    timed_out(report, Cause.HARD_LIMIT)
    assert report.signal == signal.SIGTERM


def test_call_with_blocked_signals_is_killed_after_the_grace(tmp_path: Path) -> None:
    limits = Limits(timeout_seconds=1.5, soft_timeout_seconds=1, grace_seconds=0.5)
    mark = tmp_path / "mark"
    call = Call.of(limit_calls.sleeps_with_blocked_signals, str(mark), limits=limits)

    report = punctual(call, 2.0)

    assert mark.exists()
    timed_out(report, Cause.HARD_LIMIT)
    assert report.signal == signal.SIGKILL


def test_process_that_left_the_group_dies_with_its_call(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with Executor(standby=0) as executor:
        call_id = executor.submit(
            Call.of(limit_calls.starts_one_in_a_session_of_its_own, str(mark))
        )
        executor.poll(0)
        eventually(mark.exists)
        grandchild = int(mark.read_text())
        assert alive(grandchild)

        executor.end(call_id, grace_seconds=10)
        (report,) = collect(executor, 1)

    assert report.outcome is Outcome.STOPPED
    eventually(lambda: not alive(grandchild), what="death of the grandchild")


def test_call_that_left_its_group_to_another_process_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with Executor(standby=0) as executor:
        call = Call.of(limit_calls.leaves_its_group_to_another, str(mark))
        call_id = executor.submit(call)
        executor.poll(0)
        eventually(mark.exists)

        executor.end(call_id, grace_seconds=60)
        (report,) = collect(executor, 1)

    assert (report.outcome, report.signal) == (Outcome.STOPPED, signal.SIGTERM)


def test_process_that_a_call_left_on_purpose_lives_on(tmp_path: Path) -> None:
    report = run_call(Call.of(limit_calls.exits_with_a_daemon, str(tmp_path / "mark")))

    daemon = load_value(report)
    assert alive(daemon)
    os.kill(daemon, signal.SIGKILL)


# Soft


def test_call_can_clean_up_at_its_soft_limit() -> None:
    limits = Limits(soft_timeout_seconds=0.3, timeout_seconds=60)

    report = run_call(Call.of(limit_calls.cleans_up_after_soft_limit, limits=limits))

    assert (report.outcome, report.cause) == (Outcome.RETURNED, None)
    assert load_value(report).startswith("cleaned up: The soft time limit")
    assert seconds_of(report) >= 0.3


def test_soft_limit_that_leaves_the_call_is_a_time_out() -> None:
    report = run_call(Call.of(calls.waits, limits=Limits(soft_timeout_seconds=0.3)))

    timed_out(report, Cause.SOFT_LIMIT)
    assert report.failure is not None
    assert report.failure.exception_class_path == "dayfly.executor.errors.SoftTimeLimitExceeded"
    assert "signal.pause()" in report.failure.traceback
    assert "soft time limit of 0.3 s in tests.calls.waits" in report.message


def test_call_that_starts_after_its_soft_limit_is_told_at_once(tmp_path: Path) -> None:
    """On a busy machine a child may not run before: then the signal came when there was no call."""
    start = tmp_path / "start"
    terms = Terms(after_fork=(partial(calls.waits_for, str(start)),))
    with Executor(standby=0, terms=terms) as executor:
        executor.submit(Call.of(calls.waits, limits=Limits(soft_timeout_seconds=0.2)))
        eventually(
            lambda: executor.poll(0.05) or any(c.was_told for c in executor._runner.children)
        )
        start.touch()
        (report,) = collect(executor, 1)

    timed_out(report, Cause.SOFT_LIMIT)


def test_soft_limit_is_not_swallowed_by_except_exception(tmp_path: Path) -> None:
    path = tmp_path / "swallowed"

    report = run_call(
        Call.of(limit_calls.swallows_exceptions, str(path), limits=Limits(soft_timeout_seconds=0.3))
    )

    timed_out(report, Cause.SOFT_LIMIT)
    assert not path.exists()
    assert not issubclass(SoftTimeLimitExceeded, Exception)


def test_soft_limit_leaves_the_calls_own_alarm_alone() -> None:
    report = run_call(
        Call.of(limit_calls.uses_its_own_alarm, limits=Limits(soft_timeout_seconds=0.7))
    )

    assert load_value(report) == "rung 1 times, then told"


def test_call_that_took_the_signal_away_dies_of_it_as_a_time_out() -> None:
    report = run_call(
        Call.of(
            limit_calls.gives_the_soft_signal_its_default_back,
            limits=Limits(soft_timeout_seconds=0.5),
        )
    )

    timed_out(report, Cause.SOFT_LIMIT)
    assert report.signal == SOFT_SIGNAL


def test_signal_that_comes_too_late_harms_nobody(tmp_path: Path) -> None:
    """Sent for one call, and taken while the child waits, or runs the next."""
    until = tmp_path / "until"
    mark = tmp_path / "mark"
    with Executor(policy=AfterCalls(0), standby=0) as executor:
        executor.submit(Call.of(calls.returns, 1, limits=Limits(soft_timeout_seconds=60)))
        (first,) = collect(executor, 1)
        assert first.child_pid is not None
        os.kill(first.child_pid, SOFT_SIGNAL)
        limits = Limits(soft_timeout_seconds=60)
        executor.submit(Call.of(calls.marks_and_waits_for, str(mark), str(until), limits=limits))
        executor.poll(0)
        eventually(mark.exists)
        os.kill(first.child_pid, SOFT_SIGNAL)
        until.touch()
        (second,) = collect(executor, 1)

    assert (second.outcome, second.child_pid) == (Outcome.RETURNED, first.child_pid)


@pytest.mark.parametrize(
    "wait", [limit_calls.waits_in_asyncio, limit_calls.spins_in_asyncio, limit_calls.blocks_asyncio]
)
def test_soft_limit_reaches_asyncio(wait: object) -> None:
    """In the loop's own code an exception would be logged and lost."""
    limits = Limits(soft_timeout_seconds=0.5, timeout_seconds=60)

    report = run_call(Call.of(wait, limits=limits))  # type: ignore[arg-type]

    timed_out(report, Cause.SOFT_LIMIT)
    assert report.output == b"cleaned up\n"
    assert report.failure is not None
    assert report.failure.exception_class_path == "dayfly.executor.errors.SoftTimeLimitExceeded"


def test_child_whose_call_was_interrupted_serves_no_other() -> None:
    with Executor(policy=AfterCalls(0), standby=0) as executor:
        for _ in range(3):
            executor.submit(Call.of(calls.waits, limits=Limits(soft_timeout_seconds=0.3)))
        executor.submit(Call.of(calls.pid))
        *told, last = collect(executor, 4)

    assert {report.cause for report in told} == {Cause.SOFT_LIMIT}
    assert len({report.child_pid for report in (*told, last)}) == 4
    assert all(seconds_of(report) >= 0.3 for report in told)
    assert last.outcome is Outcome.RETURNED


def test_next_event_is_the_soft_limit() -> None:
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.waits, limits=Limits(soft_timeout_seconds=0.4)))
        executor.poll(0)

        seconds = executor.seconds_to_next_event()

    assert seconds is not None
    assert seconds <= 0.4


# CPU


@pytest.mark.parametrize(
    "burn",
    [limit_calls.burns_in_a_process_of_its_own, limit_calls.burns_in_many_short_processes],
)
def test_cpu_time_of_started_processes_counts(burn: object) -> None:
    report = run_call(Call.of(burn, limits=Limits(cpu_seconds=0.4, timeout_seconds=60)))  # type: ignore[arg-type]

    timed_out(report, Cause.CPU_LIMIT)


def test_call_that_uses_up_its_cpu_time_is_ended() -> None:
    report = run_call(Call.of(calls.burns, 60, limits=Limits(cpu_seconds=0.3)))

    timed_out(report, Cause.CPU_LIMIT)
    assert "used up its 0.3 s of CPU time in tests.calls.burns" in report.message
    assert report.usage is not None
    assert 0.2 < report.usage.user_seconds + report.usage.system_seconds < SLACK_SECONDS


def test_cpu_time_is_counted_from_the_start_of_each_call() -> None:
    with Executor(policy=AfterCalls(0), standby=0) as executor:
        for _ in range(4):
            executor.submit(Call.of(calls.burns, 0.3, limits=Limits(cpu_seconds=0.9)))
        reports = collect(executor, 4)

    assert [report.outcome for report in reports] == [Outcome.RETURNED] * 4
    assert len({report.child_pid for report in reports}) == 1


def test_waiting_uses_no_cpu_time(tmp_path: Path) -> None:
    limits = Limits(cpu_seconds=0.1, timeout_seconds=1.5)

    report = run_call(Call.of(calls.waits, limits=limits))

    timed_out(report, Cause.HARD_LIMIT)


def test_call_is_nicer_while_it_runs_and_its_child_is_not_afterwards() -> None:
    before = limit_calls.niceness()
    with Executor(policy=AfterCalls(0), standby=0) as executor:
        executor.submit(Call.of(limit_calls.niceness, limits=Limits(nice=5)))
        executor.submit(Call.of(limit_calls.niceness))
        nicer, plain = collect(executor, 2)

    assert (load_value(nicer), load_value(plain)) == (min(before + 5, 19), before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_child_that_must_stay_nice_serves_no_other_call() -> None:
    before = limit_calls.niceness()
    terms = Terms(after_fork=(limit_calls.become_nobody,))
    with Executor(policy=AfterCalls(0), standby=0, terms=terms) as executor:
        executor.submit(Call.of(limit_calls.niceness, limits=Limits(nice=5)))
        executor.submit(Call.of(limit_calls.niceness))
        nicer, plain = collect(executor, 2)

    assert (load_value(nicer), load_value(plain)) == (min(before + 5, 19), before)
    assert nicer.child_pid != plain.child_pid


# What is refused


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout_seconds": 0},
        {"soft_timeout_seconds": -1},
        {"cpu_seconds": 0},
        {"grace_seconds": -1},
        {"memory_bytes": 0},
        {"memory_bytes": 1.5},
        {"data_bytes": -5},
        {"nice": -1},
        {"nice": 40},
        {"timeout_seconds": float("nan")},
        {"soft_timeout_seconds": 5, "timeout_seconds": 5},
    ],
    ids=str,
)
def test_impossible_limit_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("never", [math.inf, 1e300])
def test_limit_that_never_comes_is_none(never: float) -> None:
    limits = Limits(
        timeout_seconds=never,
        soft_timeout_seconds=never,
        cpu_seconds=never,
        memory_bytes=sys.maxsize,
        data_bytes=sys.maxsize + 1,
    )

    report = run_call(Call.of(calls.returns, limits=limits))

    assert report.outcome is Outcome.RETURNED, report.message
    assert replace(limits, data_bytes=None) == Limits()
