"""Every ending of a call, with real children: what the report says."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from dayfly.executor import Call, Executor, Limits, Outcome, RunReport, Terms, load_value, run_call
from tests import calls
from tests.helpers import alive, collect, eventually


def report_of(call: Call) -> RunReport:
    return run_call(call)


def test_returned_value_comes_back() -> None:
    report = report_of(Call.of(calls.returns, {"a": [1, 2, None]}))

    assert report.outcome is Outcome.RETURNED
    assert load_value(report) == {"a": [1, 2, None]}
    assert (report.message, report.failure, report.exit_code, report.signal) == (
        "",
        None,
        None,
        None,
    )


def test_none_is_a_value() -> None:
    report = report_of(Call.of(calls.returns, None))

    assert report.outcome is Outcome.RETURNED
    assert report.value is not None
    assert load_value(report) is None


def test_raw_call_hands_bytes_over_and_back() -> None:
    report = report_of(Call(target="tests.calls.raw_upper", payload=b"abc", title="upper"))

    assert (report.outcome, report.value) == (Outcome.RETURNED, b"ABC")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no.such.module", "No module named 'no'"),
        ("tests.calls.no_such", "'no_such'"),
        ("nodots", "not a dotted path"),
    ],
)
def test_target_that_cannot_be_found_is_a_failure_that_names_it(target: str, words: str) -> None:
    report = report_of(Call(target=target))

    assert report.outcome is Outcome.RAISED
    assert words in report.message


def test_raised_exception_comes_back_as_text() -> None:
    report = report_of(Call.of(calls.raises, "no luck"))

    assert report.outcome is Outcome.RAISED
    assert report.value is None
    assert report.failure is not None
    assert report.failure.exception_class_path == "builtins.ValueError"
    assert report.failure.message == "no luck"
    assert "raise ValueError(message)" in report.failure.traceback
    assert report.message == "ValueError: no luck"


def test_cause_is_part_of_the_traceback() -> None:
    report = report_of(Call.of(calls.raises_with_cause))

    assert report.failure is not None
    assert "KeyError: 'the cause'" in report.failure.traceback
    assert "direct cause of the following exception" in report.failure.traceback


def test_exception_that_cannot_be_shown_is_named() -> None:
    report = report_of(Call.of(calls.raises_unspeakable))

    assert report.outcome is Outcome.RAISED
    assert report.failure is not None
    assert report.failure.exception_class_path == "tests.calls.Unspeakable"
    assert "cannot be shown" in report.failure.message


def test_long_message_is_cut_in_the_middle() -> None:
    report = report_of(Call.of(calls.raises, "a" * 5_000 + "\ud800" + "z" * 5_000))

    assert report.failure is not None
    assert len(report.failure.message) < 2_200
    assert report.failure.message.startswith("aaa")
    assert report.failure.message.endswith("zzz")
    assert "characters left out" in report.failure.message


def test_sys_exit_is_an_exception_like_others() -> None:
    report = report_of(Call.of(calls.sys_exits, 3))

    assert report.outcome is Outcome.RAISED
    assert report.message == "SystemExit: 3"


@pytest.mark.parametrize("code", [0, 7, 255])
def test_os_exit_is_reported_with_its_code(code: int) -> None:
    report = report_of(Call.of(calls.os_exits, code))

    assert (report.outcome, report.exit_code, report.signal) == (Outcome.EXITED, code, None)
    assert "os._exit" in report.message


def test_segfault_is_reported_as_killed() -> None:
    report = report_of(Call.of(calls.segfaults))

    assert (report.outcome, report.signal) == (Outcome.KILLED, signal.SIGSEGV)
    assert "SIGSEGV" in report.message
    assert "C code" in report.message


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGRTMIN + 3])
def test_signal_that_we_did_not_send_is_reported_as_killed(number: int) -> None:
    report = report_of(Call.of(calls.kills_itself, number))

    assert (report.outcome, report.signal, report.exit_code) == (Outcome.KILLED, number, None)


def test_call_past_its_time_limit_is_ended() -> None:
    report = report_of(Call.of(calls.waits, limits=Limits(timeout_seconds=0.1)))

    assert (report.outcome, report.signal) == (Outcome.TIMED_OUT, signal.SIGTERM)
    assert "time limit of 0.1 s in tests.calls.waits" in report.message


def test_call_that_ignores_sigterm_is_killed_after_grace(tmp_path: Path) -> None:
    limits = Limits(timeout_seconds=0.3, grace_seconds=0.1)

    report = report_of(Call.of(calls.ignores_sigterm, str(tmp_path / "mark"), limits=limits))

    assert (tmp_path / "mark").exists()
    assert (report.outcome, report.signal) == (Outcome.TIMED_OUT, signal.SIGKILL)


def test_value_that_comes_after_the_time_limit_is_too_late(tmp_path: Path) -> None:
    limits = Limits(timeout_seconds=0.3, grace_seconds=10)

    report = report_of(Call.of(calls.finishes_on_sigterm, str(tmp_path / "mark"), limits=limits))

    assert (report.outcome, report.value) == (Outcome.TIMED_OUT, None)


def test_grandchildren_of_a_timed_out_call_die(tmp_path: Path) -> None:
    mark = tmp_path / "grandchild"
    with Executor(standby=0) as executor:
        call_id = executor.submit(Call.of(calls.leaves_grandchild, str(mark)))
        executor.poll(0)
        eventually(mark.exists, what="the grandchild's mark")
        grandchild = int(mark.read_text())
        assert alive(grandchild)

        executor.end(call_id, grace_seconds=0.1)
        (report,) = collect(executor, 1)

    assert report.outcome is Outcome.STOPPED
    eventually(lambda: not alive(grandchild), what="death of the grandchild")


def test_stop_yields_stopped(tmp_path: Path) -> None:
    with Executor(concurrency=2, standby=0) as executor:
        for name in "ab":
            executor.submit(Call.of(calls.waits, str(tmp_path / name)))
        executor.poll(0)
        eventually(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists())

        executor.stop(grace_seconds=5)
        reports = collect(executor, 2)

    assert {report.outcome for report in reports} == {Outcome.STOPPED}
    assert "its worker stops" in reports[0].message


def test_stopped_call_that_finishes_is_believed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.finishes_on_sigterm, str(mark)))
        executor.poll(0)
        eventually(mark.exists)

        executor.stop(grace_seconds=10)
        (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RETURNED
    assert load_value(report) == "finished in time"


def test_end_of_an_unknown_call_says_so(executor: Executor) -> None:
    assert executor.end("unknown") is False


def test_child_that_closed_its_descriptors_exited() -> None:
    report = report_of(Call.of(calls.closes_all_descriptors))

    assert report.outcome is Outcome.EXITED
    assert "closed or replaced" in report.message


def test_copy_that_returns_does_not_report() -> None:
    report = report_of(Call.of(calls.forks_a_copy_that_returns))

    assert load_value(report) == "the original"


def test_copy_that_raises_does_not_report() -> None:
    report = report_of(Call.of(calls.forks_a_copy_that_raises))

    assert (report.outcome, load_value(report)) == (Outcome.RETURNED, "the original")


def test_copy_that_returns_after_its_original_harms_nobody(tmp_path: Path) -> None:
    with Executor(policy=None, standby=1) as executor:
        executor.submit(Call.of(calls.forks_a_copy_that_returns_late, str(tmp_path / "go")))
        (first,) = collect(executor, 1)
        copy = load_value(first)
        (tmp_path / "go").touch()
        eventually(lambda: not alive(copy), what="the end of the copy")

        executor.submit(Call.of(calls.returns, 2))
        (second,) = collect(executor, 1)

    assert load_value(second) == 2


def test_value_too_large_is_a_failure_that_names_the_sizes() -> None:
    report = run_call(Call.of(calls.returns_bytes, 5_000), terms=Terms(max_value_bytes=4_096))

    assert report.outcome is Outcome.RAISED
    assert report.failure is not None
    assert report.failure.exception_class_path == "dayfly.executor.errors.CallNotSendable"
    assert "the limit is 4096" in report.message


def test_value_that_cannot_be_pickled_is_a_failure_that_names_its_type() -> None:
    report = report_of(Call.of(calls.returns_lambda))

    assert report.outcome is Outcome.RAISED
    assert "a function, cannot be sent back" in report.message


def test_argument_that_cannot_be_unpickled_is_a_failure() -> None:
    report = report_of(Call.of(calls.returns, calls.BrokenArgument()))

    assert (report.outcome, report.message) == (Outcome.RAISED, "ValueError: cannot be unpickled")


def test_garbage_in_place_of_a_report_ends_the_child() -> None:
    report = report_of(Call.of(calls.sends_garbage))

    assert report.outcome is Outcome.EXITED
    assert "not a frame" in report.message
    assert "descriptors that are not its own" in report.message


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"dfly\x03\xff\xff\xff\xff\x00\x00\x00\x00", "it announces 4294967295 bytes"),
        (b"dfly\x03\x00\x00\x00\x02\xff\xff\xff\xff{}", "it announces 4294967297 bytes"),
        (b"dfly\x03\x00\x00\x00\x02\x00\x00\x00\x00[]", "its head is not an object"),
        (b"dfly\x03\x00\x00\x00\x02\x00\x00\x00\x00{}", "a call that it was not given"),
        (b"dfly\x01\x00\x00\x00\x02\x00\x00\x00\x00{}", "it speaks out of turn"),
    ],
)
def test_unusable_frame_ends_the_child_and_is_named(data: bytes, why: str) -> None:
    report = report_of(Call.of(calls.sends_garbage_and_waits, data))

    assert report.outcome is Outcome.EXITED
    assert why in report.message


def test_half_a_frame_then_death_is_a_death() -> None:
    report = report_of(Call.of(calls.sends_half_a_frame_and_dies))

    assert (report.outcome, report.signal) == (Outcome.KILLED, signal.SIGKILL)


def test_child_that_closes_its_socket_is_still_ended_in_time() -> None:
    limits = Limits(timeout_seconds=0.2)

    report = report_of(Call.of(calls.closes_the_channel_and_stays, limits=limits))

    assert report.outcome is Outcome.TIMED_OUT


def test_signal_without_a_name_is_shown_by_number() -> None:
    report = report_of(Call.of(calls.kills_itself, signal.SIGRTMIN + 3))

    assert f"signal {signal.SIGRTMIN + 3}" in report.message


def test_moments_are_in_order() -> None:
    report = report_of(Call.of(calls.returns))

    assert report.started_ns is not None
    assert report.dispatched_ns <= report.started_ns <= report.finished_ns


def test_cpu_time_is_that_of_the_call() -> None:
    report = report_of(Call.of(calls.burns, 0.1))

    assert report.usage is not None
    assert 0.08 < report.usage.user_seconds + report.usage.system_seconds < 2


def test_imports_of_the_call_are_counted() -> None:
    assert "this" not in sys.modules

    report = report_of(Call.of(calls.imports, "this"))

    assert report.new_modules == 1
    assert b"Beautiful is better than ugly" in report.output


def test_large_payload_and_value_cross_whole() -> None:
    block = os.urandom(1 << 20) * 20

    report = report_of(Call.of(calls.returns, block))

    assert load_value(report) == block


def test_flood_in_place_of_a_report_is_cut_off() -> None:
    report = run_call(Call.of(calls.floods_the_channel), terms=Terms(max_value_bytes=2 << 20))

    assert report.outcome is Outcome.EXITED
    assert "a call that it was not given" in report.message


# What a call may leave behind, and its report still gets through


@pytest.mark.parametrize(
    ("target", "kind"), [("tests.calls.raw_text", "str"), ("tests.calls.raw_nothing", "NoneType")]
)
def test_raw_call_that_returns_no_bytes_is_a_failure_that_names_the_type(
    target: str, kind: str
) -> None:
    report = report_of(Call(target=target, payload=b"abc"))

    assert report.outcome is Outcome.RAISED
    assert f"returned a {kind}, not bytes" in report.message


def test_long_traceback_gets_through_whatever_its_alphabet() -> None:
    report = report_of(Call.of(calls.raises, "\U0001f98b" * 300_000))

    assert report.outcome is Outcome.RAISED
    assert report.failure is not None
    assert 90_000 < len(report.failure.traceback) < 101_000


def test_call_that_used_up_all_descriptors_still_reports() -> None:
    report = report_of(Call.of(calls.hogs_descriptors))

    assert report.outcome is Outcome.RAISED
    assert "Too many open files" in report.message
    assert report.memory_start is not None
    assert report.memory_end is None


def test_call_that_left_a_broken_stdout_still_reports() -> None:
    report = report_of(Call.of(calls.breaks_stdout))

    assert load_value(report) == "still here"
