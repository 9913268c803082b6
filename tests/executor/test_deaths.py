"""Deaths: which are told apart, and what a person reads. Half-sent reports, too."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dayfly.executor import Call, Cause, Executor, Limits, Outcome, Terms, load_value, run_call
from dayfly.executor.kernelkills import KernelKills
from tests import calls, limit_calls
from tests.helpers import collect, eventually


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    place = tmp_path / "proc"
    place.mkdir()
    (place / "vmstat").write_text("oom_kill 0\n")
    return place


def start(executor: Executor, mark: Path) -> int:
    executor.submit(Call.of(calls.waits, str(mark)))
    executor.poll(0)
    eventually(mark.exists)
    return int(mark.read_text())


def test_sigkill_has_three_reasons(tmp_path: Path, proc: Path) -> None:
    """Somebody's, the kernel's, and our own: each is told as what it is."""
    messages = {}
    with Executor(standby=0) as executor:
        executor._runner.supervisor.watch.kills = KernelKills(
            proc=str(proc), cgroup_root=str(tmp_path)
        )

        os.kill(start(executor, tmp_path / "somebody"), signal.SIGKILL)
        (somebody,) = collect(executor, 1)

        pid = start(executor, tmp_path / "kernel")
        (proc / "vmstat").write_text("oom_kill 1\n")
        os.kill(pid, signal.SIGKILL)
        (kernel,) = collect(executor, 1)

        limits = Limits(timeout_seconds=0.5, grace_seconds=0.1)
        executor.submit(Call.of(calls.ignores_sigterm, str(tmp_path / "own"), limits=limits))
        (own,) = collect(executor, 1)

    for report in (somebody, kernel, own):
        assert report.signal == signal.SIGKILL
        messages[report.cause] = report.message
    assert (somebody.outcome, somebody.cause) == (Outcome.KILLED, Cause.OUTSIDE)
    assert "the kernel counted no kill" in messages[Cause.OUTSIDE]
    assert (kernel.outcome, kernel.cause) == (Outcome.KILLED, Cause.OUT_OF_MEMORY)
    assert "The kernel did it: the memory of this machine ran out." in messages[Cause.OUT_OF_MEMORY]
    assert "add memory" in messages[Cause.OUT_OF_MEMORY]
    assert (own.outcome, own.cause) == (Outcome.TIMED_OUT, Cause.HARD_LIMIT)
    assert len(set(messages.values())) == 3


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL])
def test_signal_of_its_own_making_is_a_crash(number: int) -> None:
    report = run_call(Call.of(calls.kills_itself, number))

    assert (report.outcome, report.cause) == (Outcome.KILLED, Cause.CRASH)
    assert "A crash in C code" in report.message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signal_of_somebody_else_is_named(number: int) -> None:
    report = run_call(Call.of(calls.kills_itself, number))

    assert (report.outcome, report.cause) == (Outcome.KILLED, Cause.OUTSIDE)
    assert signal.Signals(number).name in report.message


# Cancelled


def test_running_call_can_be_cancelled(tmp_path: Path) -> None:
    with Executor(standby=0) as executor:
        call_id = executor.submit(Call.of(calls.waits, str(tmp_path / "mark")))
        executor.poll(0)
        eventually((tmp_path / "mark").exists)

        assert executor.cancel(call_id)
        assert not executor.cancel(call_id)
        (report,) = collect(executor, 1)

        assert not executor.cancel(call_id)
        assert not executor.cancel("unknown")

    assert (report.call_id, report.outcome) == (call_id, Outcome.CANCELLED)
    assert "because the call was cancelled" in report.message
    assert report.child_pid is not None


def test_waiting_call_can_be_cancelled_and_yields_its_report() -> None:
    with Executor(standby=0) as executor:
        call_id = executor.submit(Call.of(calls.leave_mark, "/nonexistent/never"))

        assert executor.cancel(call_id)
        assert executor.seconds_to_next_event() == 0
        assert executor.has_work
        (report,) = executor.poll(0)

        assert not executor.has_work

    assert (report.call_id, report.outcome, report.child_pid) == (call_id, Outcome.CANCELLED, None)
    assert "cancelled before it started" in report.message


def test_cancelled_call_is_cancelled_although_it_finishes(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with Executor(standby=0) as executor:
        call_id = executor.submit(Call.of(calls.finishes_on_sigterm, str(mark)))
        executor.poll(0)
        eventually(mark.exists)
        executor.cancel(call_id, grace_seconds=10)
        (report,) = collect(executor, 1)

    assert (report.outcome, report.value) == (Outcome.CANCELLED, None)


# Results that do not arrive


@pytest.mark.parametrize(("how", "outcome"), [("kill", Outcome.KILLED), ("exit", Outcome.EXITED)])
def test_half_a_report_is_one_failed_call(how: str, outcome: Outcome) -> None:
    with Executor(standby=0) as executor:
        executor.submit(Call.of(limit_calls.sends_half_a_report_and_dies, how))
        executor.submit(Call.of(calls.returns, "the next"))
        broken, good = collect(executor, 2)

    assert (broken.outcome, broken.value) == (outcome, None)
    assert load_value(good) == "the next"


def test_hundred_megabytes_come_back_whole() -> None:
    terms = Terms(max_value_bytes=200 << 20)

    report = run_call(Call.of(calls.returns_bytes, 100 << 20), terms=terms)

    assert report.outcome is Outcome.RETURNED
    assert len(load_value(report)) == 100 << 20


def test_hundred_megabytes_too_many_are_one_failed_call() -> None:
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.returns_bytes, 100 << 20))
        executor.submit(Call.of(calls.returns, "the next"))
        large, good = collect(executor, 2)

    assert large.outcome is Outcome.RAISED
    assert "the limit is" in large.message
    assert load_value(good) == "the next"


def test_closed_pipe_is_one_failed_call() -> None:
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.closes_all_descriptors))
        executor.submit(Call.of(calls.returns, "the next"))
        closed, good = collect(executor, 2)

    assert closed.outcome is Outcome.EXITED
    assert load_value(good) == "the next"
