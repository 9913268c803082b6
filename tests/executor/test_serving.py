"""How many calls a child serves, which are forked ahead, and what waits for the record."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

import pytest

from dayfly.executor import AfterCalls, Call, Executor, Limits, Outcome, RunReport, load_value
from dayfly.executor.supervisor import MAX_EXITS
from tests import calls
from tests.helpers import alive, collect, collect_exits, eventually


def submit_pids(executor: Executor, count: int) -> list[RunReport]:
    for _ in range(count):
        executor.submit(Call.of(calls.pid))
    return collect(executor, count)


# Recycling


def test_each_call_has_a_child_of_its_own_by_default() -> None:
    with Executor(concurrency=2) as executor:
        reports = submit_pids(executor, 6)

    assert len({report.child_pid for report in reports}) == 6
    assert {report.child_index for report in reports} == {1}
    assert all(report.fork_seconds is not None for report in reports)
    assert [load_value(report) for report in reports] == [report.child_pid for report in reports]


def test_child_serves_as_many_calls_as_it_may() -> None:
    with Executor(policy=AfterCalls(3), standby=0) as executor:
        reports = submit_pids(executor, 7)

    assert [report.child_index for report in reports] == [1, 2, 3, 1, 2, 3, 1]
    assert len({report.child_pid for report in reports}) == 3
    assert [report.fork_seconds is not None for report in reports] == [
        report.child_index == 1 for report in reports
    ]


def test_zero_calls_means_no_limit() -> None:
    with Executor(policy=AfterCalls(0), standby=0) as executor:
        reports = submit_pids(executor, 20)

    assert len({report.child_pid for report in reports}) == 1
    assert [report.child_index for report in reports] == list(range(1, 21))


def test_jitter_is_drawn_for_each_child_and_stays_in_its_bounds() -> None:
    policy = AfterCalls(5, jitter=3)

    drawn = {policy.calls_for_new_child() for _ in range(500)}

    assert drawn == {5, 6, 7, 8}


@pytest.mark.parametrize("counts", [{"calls": -1}, {"jitter": -1}])
def test_policy_refuses_impossible_counts(counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(counts))):
        AfterCalls(**counts)


@dataclass
class UntilItPrints:
    """A policy of the user's: keep a child until its call prints something."""

    seen: list[RunReport] = field(default_factory=list)

    def calls_for_new_child(self) -> int | None:
        return 3

    def keeps(self, report: RunReport) -> bool:
        self.seen.append(report)
        return not report.output


def test_policy_may_be_any_object_that_answers() -> None:
    policy = UntilItPrints()
    with Executor(policy=policy, standby=0) as executor:
        for text in ("", "enough", "", "", "", ""):
            executor.submit(Call.of(calls.prints, text))
        reports = collect(executor, 6)

    assert [report.child_index for report in reports] == [1, 2, 1, 2, 3, 1]
    # It is asked only about children that may serve more.
    assert policy.seen == [reports[0], reports[1], reports[2], reports[3], reports[5]]


def test_child_that_raised_serves_on() -> None:
    with Executor(policy=AfterCalls(0), standby=0) as executor:
        executor.submit(Call.of(calls.raises))
        executor.submit(Call.of(calls.pid))
        first, second = collect(executor, 2)

    assert first.outcome is Outcome.RAISED
    assert first.child_pid == load_value(second)


def test_time_limit_of_one_call_is_not_that_of_the_next(tmp_path: Path) -> None:
    with Executor(policy=AfterCalls(0), standby=0) as executor:
        executor.submit(Call.of(calls.returns, limits=Limits(timeout_seconds=0.2)))
        collect(executor, 1)
        executor.submit(Call.of(calls.waits_for, str(tmp_path / "go")))
        assert executor.poll(0.4) == []
        (tmp_path / "go").touch()
        (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RETURNED


# Standby


def test_call_starts_in_a_child_that_was_forked_before() -> None:
    with Executor(standby=2) as executor:
        executor.warm_up(freeze=False)
        ahead = set(executor.child_pids)

        reports = submit_pids(executor, 2)

        assert len(ahead) == 2
        assert {report.child_pid for report in reports} <= ahead


def test_standby_children_are_replaced() -> None:
    with Executor(standby=2) as executor:
        submit_pids(executor, 5)

        eventually(lambda: executor.poll(0) or len(executor.child_pids) == 2)


def test_standby_children_are_shown_as_such() -> None:
    with Executor(standby=1) as executor:
        executor.warm_up(freeze=False)
        (pid,) = executor.child_pids

        eventually(
            lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"dayfly: child (standby)")
        )


def test_dismissed_standby_children_leave_and_are_not_replaced() -> None:
    with Executor(standby=2) as executor:
        executor.warm_up(freeze=False)
        pids = executor.child_pids

        executor.dismiss_standby()
        eventually(lambda: executor.poll(0) or executor.is_empty)

        assert not any(map(alive, pids))
        assert executor.take_exits() == []


def test_no_more_calls_run_than_there_are_slots(tmp_path: Path) -> None:
    with Executor(concurrency=2, standby=1) as executor:
        for name in "abcd":
            executor.submit(
                Call.of(calls.marks_and_waits_for, str(tmp_path / name), str(tmp_path / "go"))
            )
        executor.poll(0)
        eventually(lambda: len(list(tmp_path.glob("?"))) == 2)
        executor.poll(0)

        assert (executor.running, executor.waiting, executor.has_work) == (2, 2, True)
        (tmp_path / "go").touch()
        collect(executor, 4)
        assert (executor.running, executor.waiting, executor.has_work) == (0, 0, False)


def test_withdrawn_calls_are_given_back_in_order(tmp_path: Path) -> None:
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.waits_for, str(tmp_path / "go")))
        executor.poll(0)
        later = [Call.of(calls.returns, number) for number in range(3)]
        for call in later:
            executor.submit(call)

        assert executor.withdraw() == later
        (tmp_path / "go").touch()
        collect(executor, 1)
        assert not executor.has_work


def test_standby_child_that_died_gets_no_call() -> None:
    with Executor(standby=1) as executor:
        executor.warm_up(freeze=False)
        (pid,) = executor.child_pids
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not alive(pid))

        (report,) = submit_pids(executor, 1)

    assert report.outcome is Outcome.RETURNED
    assert report.child_pid != pid


@pytest.mark.parametrize("spoils", [calls.closes_the_channel_later, calls.speaks_later])
def test_standby_child_with_a_spoilt_socket_gets_no_call(
    spoils: Callable[[str], str], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    with Executor(policy=AfterCalls(0), standby=0) as executor, DefaultSelector() as selector:
        selector.register(executor, EVENT_READ)
        executor.submit(Call.of(spoils, str(mark)))
        (first,) = collect(executor, 1)
        executor.poll(0)
        mark.touch()
        assert selector.select(10)

        (second,) = submit_pids(executor, 1)

    assert second.outcome is Outcome.RETURNED
    assert second.child_pid != first.child_pid


# The record


@pytest.fixture
def by_hand() -> Iterator[Executor]:
    with Executor(standby=0, record_by_hand=True) as executor:
        yield executor


def test_callbacks_run_in_order_and_only_after_the_record(
    by_hand: Executor, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    by_hand.submit(Call.of(calls.registers, str(seen), "first", "second", value=5))
    (report,) = collect(by_hand, 1)
    assert load_value(report) == 5
    assert by_hand.poll(0.2) == []
    assert not seen.exists()

    by_hand.say_recorded(report.call_id)
    (end,) = collect_exits(by_hand, 1)

    assert seen.read_text().split() == ["first", "second"]
    assert (end.call_id, end.child_pid) == (report.call_id, report.child_pid)
    assert (end.was_recorded, end.exit_code, end.signal) == (True, 0, None)


def test_callbacks_run_by_themselves_when_the_host_does_not_record(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.registers, str(seen), "done"))
        collect(executor, 1)
        collect_exits(executor, 1)

    assert seen.read_text() == "done\n"


def test_callbacks_of_a_failed_call_run_too(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.registers_then_raises, str(seen)))
        (report,) = collect(executor, 1)
        collect_exits(executor, 1)

    assert report.outcome is Outcome.RAISED
    assert seen.read_text() == "after the failure\n"


def test_broken_callback_does_not_keep_the_next_from_running(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.registers_one_that_raises, str(seen)))
        (report,) = collect(executor, 1)
        (end,) = collect_exits(executor, 1)

    assert report.outcome is Outcome.RETURNED
    assert seen.read_text() == "after it\n"
    assert b"broken callback" in end.output


def test_callbacks_of_one_call_do_not_run_for_the_next(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with Executor(policy=AfterCalls(2), standby=0) as executor:
        executor.submit(Call.of(calls.registers, str(seen), "once"))
        (first,) = collect(executor, 1)
        executor.submit(Call.of(calls.returns))
        (second,) = collect(executor, 1)
        collect_exits(executor, 1)

    assert first.child_pid == second.child_pid
    assert seen.read_text() == "once\n"


def test_child_serves_on_before_its_report_is_recorded(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with Executor(policy=AfterCalls(0), standby=0, record_by_hand=True) as executor:
        executor.submit(Call.of(calls.registers, str(seen), "one"))
        (first,) = collect(executor, 1)
        executor.submit(Call.of(calls.registers, str(seen), "two"))
        (second,) = collect(executor, 1)
        assert second.child_pid == first.child_pid
        assert not seen.exists()

        executor.say_recorded(second.call_id)
        executor.say_recorded(first.call_id)
        executor.say_recorded(first.call_id)
        executor.say_recorded("unknown")
        eventually(lambda: seen.exists() and seen.read_text() == "two\none\n")


def test_child_hears_of_several_records_at_once(tmp_path: Path) -> None:
    """Also when reports of other children are among them."""
    seen = tmp_path / "seen"
    with Executor(policy=AfterCalls(0), concurrency=2, standby=0, record_by_hand=True) as executor:
        for word in ("one", "two", "three", "four", "five"):
            executor.submit(Call.of(calls.registers, str(seen), word))
        reports = collect(executor, 5)
        assert not seen.exists()

        executor.say_recorded("unknown", *(report.call_id for report in reports))

        eventually(lambda: seen.exists() and len(seen.read_text().split()) == 5)
    assert sorted(seen.read_text().split()) == ["five", "four", "one", "three", "two"]


def test_child_stays_until_its_last_report_is_recorded(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with Executor(policy=AfterCalls(2), standby=0, record_by_hand=True) as executor:
        executor.submit(Call.of(calls.registers, str(seen), "one"))
        (first,) = collect(executor, 1)
        executor.submit(Call.of(calls.returns))
        collect(executor, 1)
        assert executor.poll(0.2) == []
        assert executor.child_pids == [first.child_pid]

        executor.say_recorded(first.call_id)
        collect_exits(executor, 1)

    assert seen.read_text() == "one\n"


@pytest.mark.parametrize("is_told", [False, True])
def test_child_killed_in_a_later_call_never_heard_of_the_first(
    tmp_path: Path, is_told: bool
) -> None:
    with Executor(policy=AfterCalls(0), standby=0, record_by_hand=True) as executor:
        executor.submit(Call.of(calls.registers, str(tmp_path / "seen"), "never"))
        (first,) = collect(executor, 1)
        executor.submit(Call.of(calls.waits, str(tmp_path / "mark")))
        eventually(lambda: executor.poll(0.02) == [] and (tmp_path / "mark").exists())
        if is_told:
            executor.say_recorded(first.call_id)

        assert first.child_pid is not None
        os.kill(first.child_pid, signal.SIGKILL)
        (second,) = collect(executor, 1)
        (end,) = collect_exits(executor, 1)

    assert second.outcome is Outcome.KILLED
    assert (end.call_id, end.was_recorded) == (first.call_id, False)
    assert not (tmp_path / "seen").exists()


def test_child_killed_while_it_waits_was_not_recorded(by_hand: Executor, tmp_path: Path) -> None:
    by_hand.submit(Call.of(calls.registers, str(tmp_path / "seen"), "never"))
    (report,) = collect(by_hand, 1)
    assert report.child_pid is not None

    os.kill(report.child_pid, signal.SIGKILL)
    (end,) = collect_exits(by_hand, 1)
    by_hand.say_recorded(report.call_id)

    assert (end.was_recorded, end.signal, end.exit_code) == (False, signal.SIGKILL, None)
    assert not (tmp_path / "seen").exists()


def test_exit_carries_what_the_parent_held_after_the_join() -> None:
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.returns))
        collect(executor, 1)
        (end,) = collect_exits(executor, 1)

    assert end.parent_rss_after_join_bytes is not None
    assert 5 * calls.MIB < end.parent_rss_after_join_bytes < 2_000 * calls.MIB
    assert executor.take_exits() == []


def test_close_does_not_pass_for_a_record(tmp_path: Path) -> None:
    executor = Executor(standby=0, record_by_hand=True)
    executor.submit(Call.of(calls.registers, str(tmp_path / "seen"), "never"))
    collect(executor, 1)

    executor.close()

    (end,) = executor.take_exits()
    assert (end.was_recorded, end.exit_code) == (False, 0)
    assert not (tmp_path / "seen").exists()


def test_close_does_not_wait_for_a_child_that_finished_and_may_serve_more(tmp_path: Path) -> None:
    executor = Executor(policy=AfterCalls(0), standby=0)
    executor.submit(Call.of(calls.finishes_on_sigterm, str(tmp_path / "mark")))
    executor.poll(0)
    eventually((tmp_path / "mark").exists)
    began = time.monotonic()

    executor.close(leave_seconds=20)

    assert time.monotonic() - began < 10


def test_exits_that_nobody_takes_do_not_pile_up() -> None:
    with Executor() as executor:
        assert executor._runner.supervisor.exits.maxlen == MAX_EXITS
