"""One contract for every launcher: what a call sees, and how its ending is told."""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dayfly.executor import (
    AfterCalls,
    Call,
    CannotStart,
    Executor,
    Limits,
    Outcome,
    RunReport,
    Source,
    Terms,
    load_value,
)
from tests import calls
from tests.helpers import alive, children_of, collect, collect_exits, eventually, open_fds

#: Those that run each call in a child, and the one that runs it in this process.
PROCESS_LAUNCHERS = ("fork", "copy", "template", "spawn")
LAUNCHERS = (*PROCESS_LAUNCHERS, "inline")
SOURCE = Source(preload=("tests.calls",))
Make = Callable[..., Executor]


@pytest.fixture(params=LAUNCHERS)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    yield from maker(request.param)


@pytest.fixture(params=PROCESS_LAUNCHERS)
def make_process(request: pytest.FixtureRequest) -> Iterator[Make]:
    """For what a process of its own is needed for: death, descriptors, signals, output, place."""
    yield from maker(request.param)


def maker(launcher: str) -> Iterator[Make]:
    made: list[Executor] = []

    def make(**options: Any) -> Executor:
        made.append(Executor(launcher=launcher, source=SOURCE, **{"standby": 0, **options}))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


def test_value_comes_back(make: Make) -> None:
    executor = make()
    executor.submit(Call.of(calls.returns, {"a": [1, None]}))

    (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RETURNED
    assert load_value(report) == {"a": [1, None]}


def test_raw_call_hands_bytes_over_and_back(make: Make) -> None:
    executor = make()
    executor.submit(Call(target="tests.calls.raw_upper", payload=b"abc"))

    (report,) = collect(executor, 1)

    assert (report.outcome, report.value) == (Outcome.RETURNED, b"ABC")


def test_exception_is_told_in_words(make: Make) -> None:
    executor = make()
    executor.submit(Call.of(calls.raises, "no luck"))

    (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RAISED
    assert report.message == "ValueError: no luck"
    assert report.failure is not None
    assert "in raises" in report.failure.traceback
    assert "fresh.py" not in report.failure.traceback


def test_exception_that_lets_nobody_set_an_attribute_is_told_as_any_other(make: Make) -> None:
    executor = make()
    executor.submit(Call.of(calls.raises_sealed))

    (report,) = collect(executor, 1)

    assert report.failure is not None
    assert report.failure.exception_class_path == "tests.calls.Sealed"
    assert "in raises_sealed" in report.failure.traceback


@pytest.mark.parametrize("title", ["with \0 in it", "half \udcff a pair", "long" * 500_000])
def test_title_that_process_lists_do_not_take_keeps_no_call_from_running(
    make_process: Make, title: str
) -> None:
    executor = make_process()
    executor.submit(replace(Call.of(calls.returns, "ran"), title=title))

    (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RETURNED, report.message
    assert load_value(report) == "ran"


def test_output_stream_that_a_call_broke_costs_no_report(make_process: Make) -> None:
    executor = make_process()
    executor.submit(Call.of(calls.replaces_stdout_by_one_that_exits))

    (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RETURNED, report.message


def test_deaths_have_exit_code_signal_and_usage(
    make_process: Make, request: pytest.FixtureRequest
) -> None:
    executor = make_process(concurrency=2)
    executor.submit(Call.of(calls.os_exits, 7))
    executor.submit(Call.of(calls.kills_itself))

    reports = {report.outcome: report for report in collect(executor, 2)}

    assert reports[Outcome.EXITED].exit_code == 7
    assert reports[Outcome.KILLED].signal == signal.SIGKILL
    for report in reports.values():
        assert report.usage is not None
        assert report.usage.minor_faults > 0
        if "[spawn]" not in request.node.name:  # of that see test_loading.py
            assert report.peak_rss_bytes is not None


def test_time_limit_ends_a_call(make_process: Make) -> None:
    executor = make_process()
    executor.submit(Call.of(calls.waits, limits=Limits(timeout_seconds=0.2, grace_seconds=0.2)))

    (report,) = collect(executor, 1)

    assert report.outcome is Outcome.TIMED_OUT


def test_child_has_only_its_own_descriptors(make_process: Make) -> None:
    left, right = os.pipe()
    os.set_inheritable(left, True)  # as servers do with the socket that they listen on
    executor = make_process()
    executor.submit(Call.of(calls.lists_descriptors))

    (report,) = collect(executor, 1)
    os.close(left)
    os.close(right)
    theirs = load_value(report)
    output = theirs[1]

    sockets = [target for target in theirs.values() if target.startswith("socket:")]
    assert output.startswith("pipe:")
    assert len(sockets) == 1
    assert not set(sockets) & set(open_fds().values())  # the other end has another number
    assert set(theirs.values()) == {"/dev/null", output, *sockets}


@pytest.mark.parametrize("launcher", ["fork", "copy"])
def test_child_keeps_what_libraries_read_their_own_code_from(launcher: str, tmp_path: Path) -> None:
    library = tmp_path / "libown.so.8"
    library.touch()
    reads, writes = os.open(library, os.O_RDONLY), os.open(library, os.O_RDWR)
    other = os.open(tmp_path, os.O_RDONLY)
    try:
        with Executor(launcher=launcher, standby=0) as executor:
            executor.submit(Call.of(calls.lists_descriptors))
            (report,) = collect(executor, 1)
    finally:
        for fd in (reads, writes, other):
            os.close(fd)
    theirs = load_value(report)

    assert theirs[reads] == str(library)
    assert theirs[writes] == theirs[other] == "/dev/null"


def test_child_can_make_any_number_of_callbacks_for_c(make: Make) -> None:
    """libffi maps them from a descriptor that it has had since somebody made the first."""
    assert calls.makes_callbacks(1) == 7
    executor = make()
    executor.submit(Call.of(calls.makes_callbacks, 3_000))

    (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RETURNED, report.message
    assert load_value(report) == 7 * 3_000


def test_child_has_no_handlers_and_a_group_of_its_own(make_process: Make) -> None:
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        executor = make_process()
        executor.submit(Call.of(calls.about_signals))
        (report,) = collect(executor, 1)
    finally:
        signal.signal(signal.SIGTERM, before)
    seen = load_value(report)

    assert seen == {
        "usr1": True,
        "term": True,
        "chld": True,
        "int": True,
        "wakeup_fd": -1,
        "blocked": 0,
        "group": report.child_pid,
    }


def test_output_is_captured_from_python_and_c(make_process: Make) -> None:
    executor = make_process()
    executor.submit(Call.of(calls.prints_in_every_way))

    (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RETURNED
    assert b"print" in report.output
    assert b"subprocess" in report.output


def test_call_starts_in_the_working_directory(make_process: Make, tmp_path: Path) -> None:
    executor = make_process(terms=Terms(workdir=str(tmp_path)))
    executor.submit(Call.of(calls.about_place))

    (report,) = collect(executor, 1)

    assert load_value(report)["cwd"] == str(tmp_path)


def test_child_serves_as_many_calls_as_the_policy_says(make_process: Make) -> None:
    executor = make_process(policy=AfterCalls(3))
    for number in range(6):
        executor.submit(Call.of(calls.returns, number))

    reports = collect(executor, 6)

    assert [report.child_index for report in reports] == [1, 2, 3, 1, 2, 3]
    assert len({report.child_pid for report in reports}) == 2


def test_standby_children_wait_and_are_let_go(make_process: Make) -> None:
    executor = make_process(standby=2)
    executor.warm_up(freeze=False)
    eventually(lambda: executor.poll(0.05) == [] and len(executor.child_pids) == 2)

    executor.dismiss_standby()

    eventually(lambda: executor.poll(0.05) == [] and executor.is_empty)


def test_closing_ends_what_runs(make_process: Make, tmp_path: Path) -> None:
    executor = make_process(concurrency=2)
    for number in range(2):
        executor.submit(Call.of(calls.waits, str(tmp_path / str(number))))
    eventually(lambda: executor.poll(0.05) == [] and len(list(tmp_path.iterdir())) == 2)
    pids = executor.all_pids

    executor.close(leave_seconds=0.5)

    assert not any(map(alive, pids))


def test_report_says_what_is_known_of_a_run(make: Make) -> None:
    executor = make()
    executor.submit(Call.of(calls.returns))

    (report,) = collect(executor, 1)

    assert report.child_pid is not None
    assert report.child_index == 1
    assert report.was_sent
    assert report.started_ns is not None
    assert report.dispatched_ns <= report.started_ns <= report.finished_ns
    assert report.usage is not None
    assert report.new_modules is not None
    for reading in (report.memory_start, report.memory_end):
        assert reading is not None
        assert 0 < (reading.uss_bytes or 0) <= (reading.pss_bytes or 0) <= reading.rss_bytes


def test_exit_of_a_call_is_an_ending(make: Make) -> None:
    executor = make()
    executor.submit(Call.of(calls.sys_exits, 3))

    (report,) = collect(executor, 1)

    assert (report.outcome, report.message) == (Outcome.RAISED, "SystemExit: 3")


def test_value_that_cannot_be_sent_is_an_ending(make: Make) -> None:
    executor = make()
    executor.submit(Call.of(calls.returns_lambda))

    (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RAISED
    assert report.failure is not None
    assert report.failure.exception_class_path == "dayfly.executor.errors.CallNotSendable"


def test_calls_that_wait_are_cancelled_or_withdrawn(make: Make) -> None:
    executor = make()
    first, second, third = (executor.submit(Call.of(calls.returns, n)) for n in range(3))

    assert executor.cancel(second)
    assert not executor.cancel(second)
    assert [call.call_id for call in executor.withdraw()] == [first, third]
    assert (executor.waiting, executor.has_work) == (0, True)
    (report,) = collect(executor, 1)

    assert (report.call_id, report.outcome) == (second, Outcome.CANCELLED)
    assert (executor.started, executor.has_work) == (0, False)


def test_calls_larger_than_the_budget_run_alone(make: Make) -> None:
    executor = make(concurrency=2, memory_budget_bytes=1_000)
    for number in range(3):
        executor.submit(replace(Call.of(calls.returns, number), memory_estimate_bytes=2_000))

    reports = collect(executor, 3)

    assert [load_value(report) for report in reports] == [0, 1, 2]
    assert (executor.started, executor.has_work) == (3, False)


@pytest.mark.parametrize("by_hand", [True, False])
def test_callback_runs_when_the_report_is_recorded(
    make: Make, by_hand: bool, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    executor = make(record_by_hand=by_hand)
    executor.submit(Call.of(calls.registers, str(seen), "recorded"))

    (report,) = collect(executor, 1)
    if by_hand:
        assert executor.poll(0) == []
        assert not seen.exists()
        executor.say_recorded(report.call_id)

    eventually(lambda: executor.poll(0.01) == [] and seen.exists())
    assert seen.read_text().split() == ["recorded"]


def test_callback_is_forgotten_when_the_report_is_refused(make: Make, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    executor = make(record_by_hand=True)
    executor.submit(Call.of(calls.registers, str(seen), "refused"))
    (refused,) = collect(executor, 1)

    executor.say_refused(refused.call_id, "unknown")
    executor.say_recorded(refused.call_id)
    executor.submit(Call.of(calls.registers, str(seen), "recorded"))
    (recorded,) = collect(executor, 1)
    executor.say_recorded(recorded.call_id)

    eventually(lambda: executor.poll(0.01) == [] and seen.exists())
    assert seen.read_text().split() == ["recorded"]


def test_child_that_serves_on_forgets_what_was_refused(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with Executor(policy=AfterCalls(0), standby=0, record_by_hand=True) as executor:
        executor.submit(Call.of(calls.registers, str(seen), "refused"))
        (first,) = collect(executor, 1)
        executor.say_refused(first.call_id)
        executor.submit(Call.of(calls.registers, str(seen), "recorded"))
        (second,) = collect(executor, 1)
        executor.say_recorded(second.call_id)
        executor.dismiss_standby()
        (end,) = collect_exits(executor, 1)

    assert first.child_pid == second.child_pid == end.child_pid
    assert end.was_recorded
    assert seen.read_text().split() == ["recorded"]


def test_host_that_only_tends_finds_the_reports_later(make_process: Make) -> None:
    executor = make_process()
    for number in range(3):
        executor.submit(Call.of(calls.returns, number))

    def has_run_all() -> bool:
        executor.tend()
        return executor.started == 3 and not executor.running

    eventually(has_run_all)

    reports = executor.poll(timeout=0)
    assert [load_value(report) for report in reports] == [0, 1, 2]
    assert not executor.has_work


def test_host_with_a_selector_gets_every_report(make: Make) -> None:
    """As docs/embedding.md says: never wait longer than `seconds_to_next_event`."""
    executor = make()
    found: list[RunReport] = []
    with selectors.DefaultSelector() as selector:
        selector.register(executor, selectors.EVENT_READ)
        for number in range(3):
            executor.submit(Call.of(calls.returns, number))
        found += executor.poll(0)
        until = time.monotonic() + 30
        while executor.has_work and time.monotonic() < until:
            seconds = executor.seconds_to_next_event()
            selector.select(30 if seconds is None else seconds)
            found += executor.poll(0)

    assert [load_value(report) for report in found] == [0, 1, 2]


def test_deadline_that_has_passed_is_not_waited_for(make: Make) -> None:
    assert make().poll(-0.5) == []


def test_hundred_calls_leave_nothing(make: Make) -> None:
    executor = make(concurrency=2, standby=2, policy=AfterCalls(20))
    for number in range(100):
        executor.submit(Call.of(calls.returns, number))

    reports = collect(executor, 100, within=60)

    assert sorted(load_value(report) for report in reports) == list(range(100))


@pytest.mark.parametrize("launcher", ["template", "spawn"])
def test_fresh_interpreter_inherits_no_state(launcher: str) -> None:
    calls.MARK.append("made by the parent")
    try:
        with Executor(launcher=launcher, source=SOURCE, standby=0) as executor:
            executor.submit(Call.of(calls.mark))
            (report,) = collect(executor, 1)
    finally:
        calls.MARK.clear()

    assert load_value(report) == []


@pytest.mark.parametrize("launcher", ["template", "spawn"])
def test_fresh_interpreter_gets_flags_and_environment(launcher: str) -> None:
    source = Source(preload=("tests.calls",), environment={"DAYFLY_TEST_COLOUR": "green"})
    with Executor(launcher=launcher, source=source, standby=0) as executor:
        executor.submit(Call.of(calls.about_interpreter))
        (report,) = collect(executor, 1)
    seen = load_value(report)

    assert seen["colour"] == "green"
    assert seen["warnoptions"] == sys.warnoptions
    assert seen["path"] == sys.path


@pytest.mark.parametrize("launcher", ["template", "spawn"])
def test_hooks_that_cannot_be_told_are_refused(launcher: str) -> None:
    terms = Terms(before_exit=(lambda: None,))

    with pytest.raises(CannotStart, match="Hooks must be functions at module level"):
        Executor(launcher=launcher, source=SOURCE, terms=terms)


def test_unknown_launcher_is_refused() -> None:
    with pytest.raises(ValueError, match="launcher='forc': give one of fork, copy"):
        Executor(launcher="forc")


def test_nothing_is_started_before_there_is_something_to_do() -> None:
    before = children_of()
    with Executor(launcher="template", source=SOURCE):
        assert children_of() == before
