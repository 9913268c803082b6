"""What is special about calls that run in the host's own process; the contract is in test_launchers.py."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dayfly.executor import (
    AsyncExecutor,
    Call,
    Executor,
    IsolatedExecutor,
    Limits,
    Outcome,
    Terms,
    carry,
    child,
    load_value,
    memory,
    run_call,
)
from dayfly.executor.call import INHERITED
from dayfly.executor.errors import ExecutorBusy
from tests import calls
from tests.helpers import collect, run_script


@pytest.fixture
def inline() -> Iterator[Executor]:
    with Executor(launcher="inline") as executor:
        yield executor


def only(executor: Executor, call: Call):
    executor.submit(call)
    (report,) = collect(executor, 1)
    return report


# Where calls run


def test_call_runs_in_this_process(inline: Executor) -> None:
    kept: list[str] = []
    call = Call(codec=INHERITED, title="a closure")
    carry.inherited[call.call_id] = (
        (lambda word: kept.append(word) or os.getpid()),
        ("in here",),
        {},
    )

    report = only(inline, call)

    assert kept == ["in here"]
    assert load_value(report) == report.child_pid == os.getpid()
    assert call.call_id not in carry.inherited


def test_no_process_is_started_and_no_descriptor_left_when_closed(inline: Executor) -> None:
    inline.warm_up()
    reports = [only(inline, Call.of(calls.returns)) for _ in range(3)]

    assert (inline.child_pids, inline.all_pids, inline.is_empty) == ([], [], True)
    assert not inline.expects_children
    assert [report.child_index for report in reports] == [1, 2, 3]
    assert {report.fork_seconds for report in reports} == {None}


def test_each_poll_runs_one_call_whatever_the_concurrency() -> None:
    with Executor(launcher="inline", concurrency=4) as executor:
        for number in range(3):
            executor.submit(Call.of(calls.returns, number))

        assert executor.concurrency == 1
        assert [len(executor.poll(0)) for _ in range(4)] == [1, 1, 1, 0]


def test_host_can_withdraw_between_two_calls(inline: Executor) -> None:
    for number in range(3):
        inline.submit(Call.of(calls.returns, number))

    (report,) = inline.poll(0)

    assert load_value(report) == 0
    assert len(inline.withdraw()) == 2
    assert inline.poll(0) == []


def test_call_may_submit_another(inline: Executor) -> None:
    other = Call.of(calls.returns, "the other")
    call = Call(codec=INHERITED)
    carry.inherited[call.call_id] = inline.submit, (other,), {}
    inline.submit(call)

    first, second = collect(inline, 2)

    assert load_value(first) == second.call_id == other.call_id
    assert load_value(second) == "the other"


def test_call_that_polls_its_own_executor_is_told(inline: Executor) -> None:
    call = Call(codec=INHERITED, title="shop.work")
    carry.inherited[call.call_id] = inline.poll, (), {}

    report = only(inline, call)

    assert report.failure is not None
    assert report.failure.exception_class_path == f"{ExecutorBusy.__module__}.ExecutorBusy"
    assert "shop.work polls the executor that runs it inline" in report.message


def test_call_may_close_its_own_executor(inline: Executor) -> None:
    call = Call(codec=INHERITED)
    carry.inherited[call.call_id] = inline.close, (), {}

    assert only(inline, call).outcome is Outcome.RETURNED


def test_running_call_cannot_be_stopped(inline: Executor) -> None:
    def tries_to_stop(call_id: str) -> list[object]:
        inline.stop()
        return [
            inline.running,
            inline.end(call_id),
            inline.cancel(call_id),
            inline.output_of(call_id),
        ]

    call = Call(codec=INHERITED)
    carry.inherited[call.call_id] = tries_to_stop, (call.call_id,), {}

    assert load_value(only(inline, call)) == [1, False, False, None]


def test_copy_that_a_call_forks_does_not_become_a_second_host() -> None:
    out = run_script(
        """
        from dayfly.executor import Call, Executor, load_value
        from tests import calls

        with Executor(launcher="inline") as executor:
            executor.submit(Call.of(calls.forks_a_copy_that_returns))
            (report,) = executor.poll()
        print(load_value(report), flush=True)
        """
    )

    assert len(out.splitlines()) == 1


# Output, and figures


def test_output_goes_where_the_hosts_goes(
    inline: Executor, capfd: pytest.CaptureFixture[str]
) -> None:
    report = only(inline, Call.of(calls.prints_in_every_way))
    sys.stdout.flush()

    assert (report.output, report.output_bytes) == (b"", None)
    assert "subprocess" in capfd.readouterr().out


def test_high_water_mark_of_the_host_is_left_alone(inline: Executor) -> None:
    with open("/proc/self/clear_refs", "wb", buffering=0) as file:
        file.write(b"5")  # so that what follows rises above it
    high = only(inline, Call.of(calls.holds, 100))
    mark = memory.peak_bytes(resource.getrusage(resource.RUSAGE_SELF))
    low = only(inline, Call.of(calls.returns))

    assert high.memory_start is not None
    assert high.peak_rss_bytes is not None
    assert high.peak_rss_bytes >= high.memory_start.rss_bytes + 90 * calls.MIB
    assert low.peak_rss_bytes is None  # what the call held at most, nobody knows
    assert memory.peak_bytes(resource.getrusage(resource.RUSAGE_SELF)) >= mark


def test_title_of_the_host_stays(inline: Executor) -> None:
    before = calls.proc_cmdline()

    assert load_value(only(inline, Call.of(calls.proc_cmdline))) == before


def test_traceback_shows_the_call_alone(inline: Executor) -> None:
    report = only(inline, Call.of(calls.raises_with_cause))

    assert report.failure is not None
    assert "KeyError: 'the cause'" in report.failure.traceback
    assert "/dayfly/executor/" not in report.failure.traceback


def test_signal_handlers_of_the_host_stay(inline: Executor) -> None:
    before = [signal.getsignal(number) for number in signal.valid_signals()]

    only(inline, Call.of(calls.returns))

    assert [signal.getsignal(number) for number in signal.valid_signals()] == before


# Ctrl-C


def test_interrupt_goes_to_the_host_and_its_report_is_kept(inline: Executor) -> None:
    call_id = inline.submit(Call.of(calls.interrupts_itself))
    inline.submit(Call.of(calls.returns, "the next"))

    with pytest.raises(KeyboardInterrupt) as interrupt:
        inline.poll()
    (report,) = inline.poll(0)
    (following,) = inline.poll(0)

    assert "interrupts_itself" in [entry.name for entry in interrupt.traceback]
    assert (report.call_id, report.outcome) == (call_id, Outcome.RAISED)
    assert report.message == "KeyboardInterrupt"
    assert load_value(following) == "the next"


def test_interrupt_beside_the_call_loses_no_report(
    inline: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come while figures are read."""
    call_id = inline.submit(Call.of(calls.returns))
    with monkeypatch.context() as patch:
        patch.setattr(memory, "thorough", lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            inline.poll()

    (report,) = inline.poll(0)

    assert (report.call_id, report.outcome) == (call_id, Outcome.RAISED)
    assert (report.message, report.started_ns) == ("KeyboardInterrupt", None)
    assert not inline.has_work


def test_interrupted_call_is_recorded_as_others_are(inline: Executor, tmp_path) -> None:
    seen = tmp_path / "seen"
    inline.submit(Call.of(calls.interrupts_itself, str(seen)))
    with pytest.raises(KeyboardInterrupt):
        inline.poll()
    assert not seen.exists()

    inline.poll(0)

    assert seen.read_text() == "recorded\n"


def test_interrupt_of_a_callback_loses_no_report(inline: Executor) -> None:
    call = Call(codec=INHERITED)
    register = child.when_recorded
    carry.inherited[call.call_id] = register, (calls.interrupts_itself,), {}
    inline.submit(call)

    with pytest.raises(KeyboardInterrupt):
        inline.poll()
    (report,) = inline.poll(0)

    assert (report.call_id, report.outcome) == (call.call_id, Outcome.RETURNED)


# Callbacks


def test_callback_that_raises_harms_nobody(
    inline: Executor, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = tmp_path / "seen"

    report = only(inline, Call.of(calls.registers_one_that_raises, str(seen)))

    assert report.outcome is Outcome.RETURNED
    assert seen.read_text() == "after it\n"
    assert "broken callback" in capsys.readouterr().err


def test_callback_belongs_to_its_own_call_when_calls_are_nested(inline: Executor, tmp_path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "inner"

    def nests() -> list[bool]:
        child.when_recorded(lambda: calls.appends(str(outer), "recorded"))
        run_inline(Call.of(calls.registers, str(inner), "recorded"))
        return [outer.exists(), inner.exists()]

    call = Call(codec=INHERITED)
    carry.inherited[call.call_id] = nests, (), {}
    report = only(inline, call)

    assert load_value(report) == [False, True]
    assert outer.read_text() == "recorded\n"


def run_inline(call: Call):
    with Executor(launcher="inline") as executor:
        return only(executor, call)


# What does not act


def test_host_is_warned_once_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with Executor(launcher="inline") as executor:
        for _ in range(3):
            only(executor, Call.of(calls.returns))

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "nothing is isolated" in record.message


def test_what_cannot_act_is_said_once_for_each(caplog: pytest.LogCaptureFixture) -> None:
    terms = Terms(workdir="/", after_fork=(os.getpid,), limits=Limits(nice=5))
    with Executor(launcher="inline", terms=terms) as executor:
        for _ in range(2):
            only(executor, Call.of(calls.returns))
            only(executor, Call.of(calls.returns, limits=Limits(timeout_seconds=5, nice=3)))

    said = [record.message for record in caplog.records if "Without effect" in record.message]
    assert [message.partition(": ")[2] for message in said] == [
        "workdir, after_fork",
        "nice",
        "timeout_seconds",
    ]


def test_limits_leave_the_host_alone(inline: Executor) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0), resource.getrlimit(resource.RLIMIT_DATA)

    limits = Limits(nice=5, data_bytes=1 << 20, soft_timeout_seconds=0.001)
    report = only(inline, Call.of(calls.holds, 50, limits=limits))

    assert report.outcome is Outcome.RETURNED
    assert before == (
        os.getpriority(os.PRIO_PROCESS, 0),
        resource.getrlimit(resource.RLIMIT_DATA),
    )


def test_working_directory_of_the_host_stays(tmp_path) -> None:
    before = os.getcwd()
    with Executor(launcher="inline", terms=Terms(workdir=str(tmp_path))) as executor:
        report = only(executor, Call.of(os.getcwd))

    assert load_value(report) == before == os.getcwd()


@pytest.mark.parametrize("face", [IsolatedExecutor, AsyncExecutor])
def test_faces_of_others_refuse_it_and_say_what_to_take(face: type) -> None:
    async def make() -> None:
        face(launcher="inline")

    with pytest.raises(ValueError, match=r"Executor\(launcher='inline'\)"):
        asyncio.run(make())


def test_one_call_can_be_run_here() -> None:
    assert load_value(run_call(Call.of(calls.pid), launcher="inline")) == os.getpid()


def test_hosts_that_fork_do_not_load_it() -> None:
    out = run_script(
        """
        import sys
        from dayfly.executor import Call, run_call
        from tests import calls

        run_call(Call.of(calls.returns))
        print("dayfly.executor.inline" in sys.modules)
        """
    )

    assert out == "False\n"


def test_debugger_stops_in_the_call() -> None:
    code = (
        "import os; from dayfly.executor import Call, run_call; from tests import calls;"
        "run_call(Call.of(calls.stops_in_the_debugger, 41), launcher='inline')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="p value + 1\ncontinue\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "(Pdb) 42" in done.stdout
    assert done.returncode == 0
