"""What children write to stdout and stderr, by whatever means."""

from __future__ import annotations

from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

from dayfly.executor import Call, Cause, Executor, Outcome, Terms, run_call
from tests import calls, limit_calls
from tests.helpers import alive, collect, eventually


def test_output_of_every_kind_is_captured_in_order() -> None:
    report = run_call(Call.of(calls.prints_in_every_way))

    assert report.output == b"print|stderr|os.write|C|subprocess|\xff\xfe|last"
    assert report.output_bytes == len(report.output)


def test_text_that_is_no_utf8_is_escaped() -> None:
    report = run_call(Call.of(calls.prints, "a\ud800b"))

    assert report.output == b"a\\ud800b"


def test_much_output_keeps_its_tail_and_its_count() -> None:
    report = run_call(Call.of(calls.prints_a_lot, 50), terms=Terms(max_output_bytes=10_000))

    assert report.outcome is Outcome.RETURNED
    assert report.output_bytes == 50 * calls.MIB + 8
    assert len(report.output) == 10_000
    assert report.output.endswith(b"xxTAIL")
    assert b"HEAD" not in report.output


def test_last_words_of_a_killed_child_are_known() -> None:
    report = run_call(Call.of(calls.prints_then_dies))

    assert (report.outcome, report.output) == (Outcome.KILLED, b"last words\n")


def test_output_belongs_to_its_own_run() -> None:
    from dayfly.executor import AfterCalls

    with Executor(policy=AfterCalls(0), standby=0) as executor:
        for text in ("one", "two"):
            executor.submit(Call.of(calls.prints, text))
        first, second = collect(executor, 2)

    assert first.child_pid == second.child_pid
    assert (first.output, second.output) == (b"one", b"two")
    assert (first.output_bytes, second.output_bytes) == (3, 3)


def test_buffered_log_records_are_flushed_before_leaving(tmp_path: Path) -> None:
    path = tmp_path / "log"

    run_call(Call.of(calls.logs_into_a_buffer, str(path)))

    assert path.read_text() == "written at last\n"


def test_process_that_outlives_its_call_dies_of_the_closed_pipe() -> None:
    from dayfly.executor import load_value

    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.leaves_a_shouting_grandchild))
        (report,) = collect(executor, 1)
        grandchild = load_value(report)

    eventually(lambda: not alive(grandchild), what="the end of the shouting process")
    assert len(report.output) <= executor.terms.max_output_bytes


def test_ten_megabytes_without_a_newline_then_a_crash_keep_the_tail() -> None:
    report = run_call(Call.of(limit_calls.prints_a_lot_then_segfaults, 10))

    assert (report.outcome, report.cause) == (Outcome.KILLED, Cause.CRASH)
    assert report.output_bytes == 10 * calls.MIB + 8
    assert report.output.endswith(b"xxTAIL")


def test_output_can_be_seen_while_the_call_runs(tmp_path: Path) -> None:
    until = tmp_path / "until"
    with Executor(standby=0) as executor:
        call_id = executor.submit(Call.of(limit_calls.prints_and_waits_for, "half way", str(until)))
        assert executor.output_of(call_id) is None

        eventually(
            lambda: executor.poll(0.05) or executor.output_of(call_id) == b"half way\n",
            what="the line that was printed",
        )
        until.touch()
        (report,) = collect(executor, 1)

        assert executor.output_of(call_id) is None

    assert report.output == b"half way\nthe end\n"


def test_descriptor_is_readable_when_there_is_output(tmp_path: Path) -> None:
    """So that a host which shows progress need not look again and again."""
    until = tmp_path / "until"
    with Executor(standby=0) as executor, DefaultSelector() as selector:
        call_id = executor.submit(Call.of(limit_calls.prints_and_waits_for, "line", str(until)))
        executor.poll(0)
        selector.register(executor, EVENT_READ)

        assert selector.select(10)
        executor.poll(0)

        assert executor.output_of(call_id) == b"line\n"
        until.touch()
        collect(executor, 1)
