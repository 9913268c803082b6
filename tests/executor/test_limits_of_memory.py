"""Memory: what a call may hold, and what ends it, with real children that take too much."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
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
    Terms,
    kin,
    load_value,
    memory,
    run_call,
)
from tests import calls, limit_calls
from tests.helpers import alive, children_of, collect, eventually

MB = 1_000_000
TIGHT = Limits(memory_bytes=60 * MB, timeout_seconds=60)


def over(report: RunReport, cause: Cause) -> None:
    assert (report.outcome, report.cause) == (Outcome.OVER_MEMORY, cause), report.message


@pytest.mark.parametrize("take", [limit_calls.leaks_slowly, limit_calls.leaks_with_numpy])
def test_slow_leak_is_ended_at_the_limit(take: object) -> None:
    # So much data that the parent is always first, also on a machine that stood still.
    limits = replace(TIGHT, data_bytes=1 << 40)

    report = run_call(Call.of(take, limits=limits))  # type: ignore[arg-type]

    over(report, Cause.MEMORY_LIMIT)
    assert "reached its memory limit of 60.0 MB" in report.message
    assert "Raise the limit" in report.message
    assert report.memory_end is not None


@pytest.mark.parametrize("hold", [limit_calls.holds_private, limit_calls.holds_shared])
def test_memory_is_counted_private_or_shared(hold: object) -> None:
    report = run_call(Call.of(hold, 100, limits=TIGHT))  # type: ignore[arg-type]

    over(report, Cause.MEMORY_LIMIT)


@pytest.mark.parametrize(
    "take",
    [
        limit_calls.takes_gigabytes_at_once,
        limit_calls.maps_gigabytes_at_once,
        limit_calls.takes_gigabytes_with_numpy,
    ],
)
def test_ten_gigabytes_at_once_are_refused(take: object) -> None:
    report = run_call(Call.of(take, 10, limits=TIGHT))  # type: ignore[arg-type]

    over(report, Cause.MEMORY_ERROR)
    assert report.failure is not None
    assert "was refused more memory" in report.message
    assert "Raise the limit of memory" in report.message


def test_refusal_can_be_handled_by_the_call() -> None:
    report = run_call(
        Call.of(limit_calls.handles_memory_error, 10, limits=Limits(data_bytes=50 * MB))
    )

    assert (report.outcome, load_value(report)) == (Outcome.RETURNED, "handled")


def test_c_code_that_aborts_is_a_crash_that_names_the_limit() -> None:
    report = run_call(
        Call.of(limit_calls.aborts_for_lack_of_memory, limits=Limits(data_bytes=50 * MB))
    )

    assert (report.outcome, report.cause) == (Outcome.KILLED, Cause.CRASH)
    assert "limit of memory" in report.message


def test_memory_error_without_a_limit_is_an_exception_like_others() -> None:
    report = run_call(Call.of(limit_calls.takes_gigabytes_at_once, 1 << 40))

    assert (report.outcome, report.cause) == (Outcome.RAISED, None)


def test_what_a_child_inherited_does_not_count() -> None:
    """Held by the parent, and so by each child from birth: far more than the limit."""
    ballast = b"x" * (200 * calls.MIB)

    report = run_call(Call.of(limit_calls.takes_megabytes, 10, limits=TIGHT))

    assert load_value(report) == 10 * calls.MIB
    assert len(ballast) == 200 * calls.MIB


@pytest.mark.parametrize("new_session", [False, True])
def test_process_that_the_call_started_counts_and_dies_with_it(
    tmp_path: Path, new_session: bool
) -> None:
    mark = tmp_path / "mark"

    report = run_call(
        Call.of(limit_calls.starts_one_that_holds, 150, str(mark), new_session, limits=TIGHT)
    )

    over(report, Cause.MEMORY_LIMIT)
    if mark.exists():  # else it died before it could say who it is
        grandchild = int(mark.read_text())
        eventually(lambda: not alive(grandchild), what="death of the grandchild")


def test_memory_that_relatives_share_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    exact = kin.written_bytes

    def counted(pid: int, at_start: int) -> int:
        looks.append(exact(pid, at_start))
        return looks[-1]

    monkeypatch.setattr(kin, "written_bytes", counted)
    limits = Limits(memory_bytes=150 * MB)
    until = tmp_path / "until"
    with Executor(standby=0) as executor:
        executor.submit(Call.of(limit_calls.shares_with_copies, 80, 4, str(until), limits=limits))
        found = executor.poll(0)
        while len(looks) < 3 and not found:
            found += executor.poll(1)
        until.touch()
        (report,) = found or collect(executor, 1)

    assert report.outcome is Outcome.RETURNED, report.message
    assert all(80 * MB < look < 150 * MB for look in looks)


def test_limit_is_lifted_for_the_next_call() -> None:
    with Executor(policy=AfterCalls(0), standby=0) as executor:
        executor.submit(
            Call.of(limit_calls.handles_memory_error, 2, limits=Limits(data_bytes=20 * MB))
        )
        executor.submit(Call.of(limit_calls.takes_megabytes, 100))
        executor.submit(Call.of(limit_calls.data_limit))
        first, second, third = collect(executor, 3)

    assert first.child_pid == second.child_pid == third.child_pid
    assert load_value(first) == "handled"
    assert load_value(second) == 100 * calls.MIB
    assert load_value(third) == resource.getrlimit(resource.RLIMIT_DATA)


def test_growth_is_counted_from_the_start_of_each_call() -> None:
    """What an earlier call left behind in the same child is not held against the next."""
    with Executor(policy=AfterCalls(0), standby=0) as executor:
        for _ in range(4):
            executor.submit(Call.of(limit_calls.keeps, 30, limits=TIGHT))
        reports = collect(executor, 4)

    assert [report.outcome for report in reports] == [Outcome.RETURNED] * 4
    assert len({report.child_pid for report in reports}) == 1


def test_limits_of_the_executor_hold_for_calls_without_their_own() -> None:
    terms = Terms(limits=Limits(data_bytes=50 * MB))

    held = run_call(Call.of(limit_calls.takes_gigabytes_at_once, 2), terms=terms)
    free = run_call(Call.of(limit_calls.takes_megabytes, 100, limits=Limits()), terms=terms)

    over(held, Cause.MEMORY_ERROR)
    assert free.outcome is Outcome.RETURNED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_child_whose_limit_cannot_be_lifted_serves_no_other_call() -> None:
    terms = Terms(after_fork=(limit_calls.become_nobody,))
    limits = Limits(data_bytes=500 * MB)
    with Executor(policy=AfterCalls(0), standby=0, terms=terms) as executor:
        executor.submit(Call.of(limit_calls.lowers_its_hard_limit, limits=limits))
        executor.submit(Call.of(calls.pid))
        first, second = collect(executor, 2)

    assert first.outcome is Outcome.RETURNED
    assert second.child_pid != first.child_pid


def test_bytes_held_are_what_was_touched(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with Executor(standby=0) as executor:
        executor.submit(
            Call.of(limit_calls.holds_and_waits_for, 50, str(mark), str(tmp_path / "until"))
        )
        executor.poll(0)
        (pid,) = executor.child_pids
        eventually(mark.exists)
        held, alone = memory.held(pid), memory.private(pid)
        (tmp_path / "until").touch()
        collect(executor, 1)

    own = memory.held(os.getpid())
    assert held is not None
    assert alone is not None
    assert own is not None
    assert 50 * calls.MIB <= alone <= held
    assert memory.held(pid) is None
    assert memory.private(pid) is None


def test_sibling_of_a_child_that_is_ended_goes_on(tmp_path: Path) -> None:
    until = tmp_path / "until"
    with Executor(concurrency=2, standby=0) as executor:
        executor.submit(Call.of(calls.waits_for, str(until)))
        executor.submit(Call.of(limit_calls.leaks_slowly, limits=TIGHT))
        (first,) = collect(executor, 1)
        until.touch()
        (second,) = collect(executor, 1)

    over(first, Cause.MEMORY_LIMIT)
    assert second.outcome is Outcome.RETURNED
    assert children_of() == set()
