"""The executor in a host that has a life of its own: its children, handlers, loop and troubles."""

from __future__ import annotations

import errno
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from dayfly.executor import AfterCalls, Call, Executor, Limits, Outcome, Terms, load_value
from dayfly.executor.children import SAMPLE_SECONDS
from dayfly.executor.runner import LONGEST_WAIT_SECONDS
from tests import calls
from tests.helpers import (
    alive,
    children_of,
    collect,
    collect_exits,
    eventually,
    open_fds,
    run_script,
)

# Children of the host


def test_exit_status_of_the_hosts_own_children_is_left_to_it() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(42)"])
    eventually(lambda: not alive(process.pid), what="the end of the host's child")
    with Executor(concurrency=2) as executor:
        for _ in range(10):
            executor.submit(Call.of(calls.returns))
        collect(executor, 10)

    assert process.wait(0) == 42


def test_sigchld_handler_of_the_host_works() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, frame: heard.append(number))
    try:
        with Executor(standby=0) as executor:
            executor.submit(Call.of(calls.returns))
            (report,) = collect(executor, 1)
            collect_exits(executor, 1)
    finally:
        signal.signal(signal.SIGCHLD, before)

    assert report.outcome is Outcome.RETURNED
    assert heard


@pytest.mark.parametrize("ending", [calls.returns, calls.kills_itself])
def test_host_that_reaps_everything_costs_the_exit_status_and_no_report(
    ending: Callable[[], object],
) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    try:
        with Executor(standby=1) as executor:
            executor.submit(Call.of(ending))
            (report,) = collect(executor, 1)
            if ending is calls.returns:
                (end,) = collect_exits(executor, 1)
                assert (end.exit_code, end.signal) == (None, None)
    finally:
        signal.signal(signal.SIGCHLD, before)

    if ending is calls.returns:
        assert report.outcome is Outcome.RETURNED
    else:
        assert report.outcome is Outcome.EXITED
        assert (report.exit_code, report.signal, report.usage) == (None, None, None)
        assert "its exit status was taken by other code in this process" in report.message


FORKS_BY_ITSELF = """
    import os
    import sys

    from dayfly.executor import Call, Executor, ExecutorClosed
    from tests import calls
    from tests.helpers import collect, eventually

    launcher, mark, go = sys.argv[1:]
    with Executor(standby=0, launcher=launcher) as executor:
        executor.submit(Call.of(calls.marks_and_waits_for, mark, go))
        eventually(lambda: executor.poll(0.05) or os.path.exists(mark))
        copy = os.fork()
        if copy == 0:
            for use in (executor.poll, lambda: executor.submit(Call.of(calls.returns))):
                try:
                    use()
                except ExecutorClosed:
                    continue
                os._exit(1)
            sys.exit(7)  # by way of the with block
        _, status = os.waitpid(copy, 0)
        open(go, "w").close()
        (report,) = collect(executor, 1)
        print(os.waitstatus_to_exitcode(status), report.outcome)
"""


@pytest.mark.parametrize("launcher", ["fork", "copy"])
def test_copy_of_the_host_leaves_its_calls_alone(launcher: str, tmp_path: Path) -> None:
    """As multiprocessing makes one. It has the same lines to the children as the host."""
    arguments = launcher, str(tmp_path / "mark"), str(tmp_path / "go")

    assert run_script(FORKS_BY_ITSELF, *arguments) == "7 returned\n"


# Signals of the host

DIES_OF_SIGPIPE = """
    import os
    import signal
    import sys

    from dayfly.executor import Call, Executor
    from tests import calls
    from tests.helpers import alive, collect, eventually

    def dies(pid):
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not alive(pid))

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    with Executor(standby=0, launcher=sys.argv[1], record_by_hand=True) as executor:
        executor.submit(Call.of(calls.registers, os.devnull, "never told"))
        (report,) = collect(executor, 1)
        for pid in sorted(executor.all_pids):
            dies(pid)
        executor.say_recorded(report.call_id)
        executor._runner.supervisor.spawn()  # without a look at what happened before
        executor.submit(Call.of(calls.returns, 2))
        (report,) = collect(executor, 1)
        print(report.outcome)
"""


@pytest.mark.parametrize("launcher", ["fork", "copy"])
def test_host_that_does_not_ignore_sigpipe_survives_its_children(launcher: str) -> None:
    """As programs do whose output may go to `head`. It would die when it speaks to one that is dead."""
    assert run_script(DIES_OF_SIGPIPE, launcher) == "returned\n"


# The loop of the host


def test_descriptor_is_readable_when_a_report_is_in(tmp_path: Path) -> None:
    with Executor(standby=0) as executor, selectors.DefaultSelector() as selector:
        selector.register(executor, selectors.EVENT_READ)
        executor.submit(Call.of(calls.waits_for, str(tmp_path / "go")))
        assert executor.poll(0) == []
        assert selector.select(0) == []

        (tmp_path / "go").touch()
        assert selector.select(10)
        (report,) = executor.poll(0)

    assert report.outcome is Outcome.RETURNED


def test_next_event_is_the_time_limit() -> None:
    with Executor(standby=0) as executor:
        assert executor.seconds_to_next_event() is None
        executor.submit(Call.of(calls.waits, limits=Limits(timeout_seconds=0.4)))
        executor.poll(0)

        seconds = executor.seconds_to_next_event()
        assert seconds is not None
        assert 0 < seconds <= 0.4
        (report,) = collect(executor, 1)

    assert report.outcome is Outcome.TIMED_OUT


def test_next_event_is_the_memory_sample_where_no_limit_is_nearer() -> None:
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.waits))
        executor.poll(0)

        seconds = executor.seconds_to_next_event()

    assert seconds is not None
    assert 0 < seconds <= SAMPLE_SECONDS


def test_poll_returns_in_time() -> None:
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.waits))
        began = time.monotonic()

        assert executor.poll(0.1) == []

        assert 0.05 < time.monotonic() - began < 5


@pytest.mark.parametrize("launcher", ["fork", "copy", "inline"])
def test_infinite_times_are_longer_than_any_wait(launcher: str, tmp_path: Path) -> None:
    """The system counts milliseconds, up to 24 days of them."""
    terms = Terms(
        leave_seconds=math.inf, before_exit=(partial(calls.waits_for, str(tmp_path / "go")),)
    )
    with Executor(standby=0, launcher=launcher, idle_seconds=math.inf, terms=terms) as executor:
        executor.submit(Call.of(calls.returns, 1))
        collect(executor, 1)  # its child does not leave yet
        executor.submit(Call.of(calls.returns, 2))
        while not (found := executor.poll(math.inf)):
            pass

        assert load_value(found[0]) == 2
        seconds = executor.seconds_to_next_event()
        assert seconds is None or seconds <= LONGEST_WAIT_SECONDS
        (tmp_path / "go").touch()


def test_pause_that_is_over_does_not_turn_poll_into_a_busy_loop() -> None:
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.waits))
        executor.submit(Call.of(calls.returns))
        executor.poll(0)
        executor._runner.nursery.no_birth_before = (
            time.monotonic()
        )  # a fork was refused while a slot was free
        began = time.monotonic()

        assert executor.poll(0.1) == []

        assert time.monotonic() - began > 0.05


def test_poll_of_an_idle_executor_says_nothing() -> None:
    with Executor() as executor:
        executor.dismiss_standby()
        assert executor.poll(0.01) == []
        assert (executor.running, executor.waiting, executor.is_empty) == (0, 0, True)


# The end


@pytest.mark.parametrize("policy", [AfterCalls(1), AfterCalls(0)])
def test_close_leaves_no_child_and_no_descriptor(tmp_path: Path, policy: AfterCalls) -> None:
    before = children_of(), open_fds()
    executor = Executor(concurrency=2, standby=2, policy=policy, record_by_hand=True)
    executor.warm_up(freeze=False)
    executor.submit(Call.of(calls.registers, str(tmp_path / "seen"), "never recorded"))
    collect(executor, 1)
    executor.submit(Call.of(calls.ignores_sigterm, str(tmp_path / "mark")))
    executor.poll(0)
    eventually((tmp_path / "mark").exists)
    executor.submit(Call.of(calls.returns))
    pids = executor.child_pids

    executor.close(leave_seconds=0.2)

    assert (children_of(), open_fds()) == before
    assert not any(map(alive, pids))


def test_close_is_quick_when_nothing_runs() -> None:
    executor = Executor(standby=2)
    executor.warm_up(freeze=False)
    began = time.monotonic()

    executor.close(leave_seconds=10)

    assert time.monotonic() - began < 5


# Troubles of the system


def test_refused_fork_is_tried_again_and_loses_no_call(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fork, refusals = os.fork, [errno.EAGAIN, errno.ENOMEM]

    def refusing() -> int:
        if refusals:
            number = refusals.pop()
            raise OSError(number, os.strerror(number))
        return fork()

    monkeypatch.setattr(os, "fork", refusing)
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.returns, "not lost"))
        assert executor.poll(0) == []
        assert executor.waiting == 1
        seconds = executor.seconds_to_next_event()
        assert seconds is not None
        assert 0 < seconds <= 0.2
        (report,) = collect(executor, 1)

    assert load_value(report) == "not lost"
    assert refusals == []
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "Cannot allocate memory" in messages[0]
    assert "Next try in 0.2 s" in messages[0]
    assert "Next try in 0.4 s" in messages[1]


def test_lack_of_descriptors_is_tried_again_and_leaks_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe, refusals = os.pipe, [errno.EMFILE]

    def refusing() -> tuple[int, int]:
        if refusals:
            number = refusals.pop()
            raise OSError(number, os.strerror(number))
        return pipe()

    monkeypatch.setattr(os, "pipe", refusing)
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.returns, 1))
        (report,) = collect(executor, 1)

    assert load_value(report) == 1


def test_child_that_cannot_be_watched_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    pidfd_open, refusals = os.pidfd_open, [errno.EMFILE]

    def refusing(pid: int) -> int:
        if refusals:
            number = refusals.pop()
            raise OSError(number, os.strerror(number))
        return pidfd_open(pid)

    monkeypatch.setattr(os, "pidfd_open", refusing)
    before = children_of()
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.returns, 1))
        assert executor.poll(0) == []
        assert children_of() == before
        (report,) = collect(executor, 1)

    assert load_value(report) == 1


@pytest.mark.parametrize("launcher", ["fork", "copy"])
def test_hook_that_raises_before_a_fork_leaves_nothing(launcher: str) -> None:
    errors = [RuntimeError("not now")]

    def hook() -> None:
        if errors:
            raise errors.pop()

    with Executor(standby=0, launcher=launcher, terms=Terms(before_fork=(hook,))) as executor:
        before = open_fds()
        executor.submit(Call.of(calls.returns, 1))

        with pytest.raises(RuntimeError, match="not now"):
            executor.poll(0)

        assert (open_fds(), executor.expects_children) == (before, False)
        (report,) = collect(executor, 1)
        assert load_value(report) == 1


FEW_DESCRIPTORS = """
    import resource
    import sys

    from dayfly.executor import Call, run_call
    from tests import calls

    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    print(run_call(Call.of(calls.returns), launcher=sys.argv[1]).outcome)
"""


@pytest.mark.parametrize("launcher", ["fork", "copy", "template", "spawn"])
def test_few_descriptors_are_enough(launcher: str) -> None:
    assert run_script(FEW_DESCRIPTORS, launcher) == "returned\n"


# Children that die at birth


def dies_at_birth() -> NoReturn:
    raise RuntimeError("broken hook")


def test_hook_runs_in_each_child_and_never_in_the_parent(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def hook() -> None:
        calls.appends(str(log), str(os.getpid()))

    with Executor(standby=0, terms=Terms(after_fork=(hook,))) as executor:
        for _ in range(3):
            executor.submit(Call.of(calls.returns))
        reports = collect(executor, 3)

    assert log.read_text().split() == [str(report.child_pid) for report in reports]


def test_hooks_before_exit_run_and_a_broken_one_is_printed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    hooks = (dies_at_birth, lambda: calls.appends(str(log), "left"))
    with Executor(standby=0, terms=Terms(before_exit=hooks)) as executor:
        executor.submit(Call.of(calls.returns))
        (report,) = collect(executor, 1)
        (end,) = collect_exits(executor, 1)

    assert log.read_text() == "left\n"
    # The child leaves as its report is read: the text may come with either.
    assert b"broken hook" in report.output + end.output
    assert end.exit_code == 0


def test_child_that_does_not_leave_is_killed() -> None:
    hooks = (calls.waits,)
    with Executor(standby=0, terms=Terms(before_exit=hooks, leave_seconds=0.1)) as executor:
        executor.submit(Call.of(calls.returns))
        collect(executor, 1)
        (end,) = collect_exits(executor, 1)

    assert end.signal == signal.SIGKILL
    assert end.was_recorded


def test_call_of_a_child_that_died_at_birth_says_so() -> None:
    with Executor(standby=0, terms=Terms(after_fork=(dies_at_birth,))) as executor:
        executor.submit(Call.of(calls.returns))
        (report,) = collect(executor, 1)

    assert report.outcome is Outcome.EXITED
    assert "failed before it could run" in report.message
    assert b"broken hook" in report.output
    assert report.started_ns is None


def test_children_that_die_at_birth_are_forked_ever_more_slowly(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    forks = count_forks(monkeypatch)
    with Executor(standby=2, terms=Terms(after_fork=(dies_at_birth,))) as executor:
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            executor.poll(0.01)

    # Two at once, then two after 0.2 s, and two after 0.4 s more.
    assert 2 <= len(forks) <= 6
    pauses = [record.getMessage().partition("Next try")[2] for record in caplog.records]
    assert pauses[:2] == [" in 0.2 s.", " in 0.4 s."]
    assert "died at birth" in caplog.records[0].getMessage()


def test_calls_of_children_that_die_at_birth_are_not_burnt_in_haste(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forks = count_forks(monkeypatch)
    with Executor(standby=0, terms=Terms(after_fork=(dies_at_birth,))) as executor:
        for _ in range(50):
            executor.submit(Call.of(calls.returns))
        collect(executor, 2)

        assert len(forks) <= 3
        assert executor.waiting >= 47


def test_hook_that_works_again_ends_the_pause(tmp_path: Path) -> None:
    def hook() -> None:
        if not (tmp_path / "repaired").exists():
            dies_at_birth()

    with Executor(standby=1, terms=Terms(after_fork=(hook,))) as executor:
        executor.warm_up(freeze=False)
        eventually(lambda: executor.poll(0) or executor.is_empty)
        (tmp_path / "repaired").touch()
        executor.submit(Call.of(calls.returns, "at last"))
        (report,) = collect(executor, 1)

    assert load_value(report) == "at last"


def count_forks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    fork, moments = os.fork, []

    def counting() -> int:
        moments.append(time.monotonic())
        return fork()

    monkeypatch.setattr(os, "fork", counting)
    return moments
