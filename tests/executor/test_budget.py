"""The memory of all running calls together: the decisions, then with real children."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from dayfly.executor import Call, Executor, Outcome
from dayfly.executor.budget import Budget, Share
from tests import calls, limit_calls
from tests.helpers import collect, eventually

MB = 1_000_000


def test_without_a_budget_everything_fits() -> None:
    assert Budget().admits(1 << 60, [Share(1 << 60)])
    assert not Budget().is_too_small_for(1 << 60)


def test_what_fits_is_started_and_what_does_not_is_not() -> None:
    budget = Budget(100)

    assert budget.admits(40, [Share(60)])
    assert not budget.admits(41, [Share(60)])
    assert budget.admits(0, [Share(60), Share(40)])
    assert not budget.admits(0, [Share(60), Share(41)])


def test_call_larger_than_the_whole_runs_alone() -> None:
    budget = Budget(100)

    assert budget.is_too_small_for(101)
    assert budget.admits(101, [])
    assert not budget.admits(101, [Share(0)])
    assert not budget.admits(1, [Share(101)])


def test_what_a_call_was_seen_to_hold_counts_where_it_is_more() -> None:
    assert not Budget(100).admits(30, [Share(10, growth_bytes=80)])
    assert not Budget(100).admits(30, [Share(80, growth_bytes=10)])


def test_impossible_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="memory_budget_bytes=0"):
        Executor(memory_budget_bytes=0)


def expecting(megabytes: int, call: Call) -> Call:
    from dataclasses import replace

    return replace(call, memory_estimate_bytes=megabytes * MB)


def test_call_that_does_not_fit_waits_and_is_not_overtaken(tmp_path: Path) -> None:
    with Executor(concurrency=3, standby=0, memory_budget_bytes=100 * MB) as executor:
        for name, megabytes in (("a", 70), ("b", 50), ("c", 10)):
            executor.submit(
                expecting(
                    megabytes,
                    Call.of(
                        calls.marks_and_waits_for,
                        str(tmp_path / name),
                        str(tmp_path / f"end of {name}"),
                    ),
                )
            )
        executor.poll(0)
        eventually((tmp_path / "a").exists)
        assert executor.poll(0.2) == []
        assert (executor.running, executor.waiting) == (1, 2)
        assert not (tmp_path / "c").exists()

        (tmp_path / "end of a").touch()
        collect(executor, 1)
        eventually(lambda: executor.poll(0.01) or executor.running == 2)
        eventually((tmp_path / "c").exists)

        for name in "bc":
            (tmp_path / f"end of {name}").touch()
        reports = collect(executor, 2)

    assert {report.outcome for report in reports} == {Outcome.RETURNED}


def test_pause_after_a_failed_birth_is_not_waited_for_by_a_call_that_does_not_fit(
    tmp_path: Path,
) -> None:
    """Nobody tries a birth for it, so the pause never ends: the loop of the host would spin."""
    with Executor(concurrency=2, standby=0, memory_budget_bytes=100 * MB) as executor:
        executor.submit(expecting(70, Call.of(calls.waits)))
        executor.submit(expecting(50, Call.of(calls.returns)))
        executor.poll(0)
        executor._runner.nursery.no_birth_before = time.monotonic()
        began = time.monotonic()

        assert executor.poll(0.1) == []

        assert time.monotonic() - began > 0.05


def test_large_call_runs_alone_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING, "dayfly.executor"),
        Executor(concurrency=3, standby=0, memory_budget_bytes=100 * MB) as executor,
    ):
        for megabytes in (50, 500, 50):
            executor.submit(expecting(megabytes, Call.of(calls.burns, 0.05)))
        reports = collect(executor, 3)

    assert {report.outcome for report in reports} == {Outcome.RETURNED}
    first, large, last = sorted(reports, key=lambda report: report.dispatched_ns)
    assert first.finished_ns <= large.dispatched_ns
    assert large.finished_ns <= last.dispatched_ns
    assert "tests.calls.burns runs alone: it expects to hold 500000000 bytes" in caplog.text


def test_calls_of_which_nothing_is_known_count_by_what_they_hold(tmp_path: Path) -> None:
    until = tmp_path / "until"
    with Executor(concurrency=2, standby=0, memory_budget_bytes=50 * MB) as executor:
        executor.submit(
            Call.of(limit_calls.holds_and_waits_for, 80, str(tmp_path / "a"), str(until))
        )
        executor.poll(0)
        eventually((tmp_path / "a").exists)
        # Seen at the next look, within a second.
        eventually(
            lambda: (
                executor.poll(0.05)
                or any(child.growth_bytes > 50 * MB for child in executor._runner.children)
            )
        )
        executor.submit(Call.of(calls.pid))
        assert executor.poll(0.1) == []
        assert (executor.running, executor.waiting) == (1, 1)

        until.touch()
        collect(executor, 2)
