"""The template: a copy of the parent that forks the children."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dayfly.executor import AfterCalls, Call, Executor, Outcome, Source, Terms, load_value
from tests import calls
from tests.helpers import alive, children_of, collect, eventually, open_fds

SOURCE = Source(preload=("tests.calls",))


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor(concurrency=2, standby=1, launcher="copy") as one:
        yield one


def template_of(executor: Executor) -> int:
    (pid,) = set(executor.all_pids) - set(executor.child_pids)
    return pid


def test_children_are_forked_by_the_template_alone(executor: Executor) -> None:
    executor.submit(Call.of(calls.pid))

    (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RETURNED
    assert children_of() == {template_of(executor)}
    assert report.child_pid not in (os.getpid(), template_of(executor))
    assert report.fork_seconds is not None
    assert 0 < report.fork_seconds < 5


def test_status_and_usage_of_a_dead_child_come_from_the_template(executor: Executor) -> None:
    executor.submit(Call.of(calls.kills_itself))
    executor.submit(Call.of(calls.os_exits, 7))

    reports = {report.outcome: report for report in collect(executor, 2)}

    killed, exited = reports[Outcome.KILLED], reports[Outcome.EXITED]
    assert (killed.signal, exited.exit_code) == (signal.SIGKILL, 7)
    assert killed.usage is not None
    assert killed.usage.minor_faults > 0
    assert killed.peak_rss_bytes is not None


def test_child_sees_nothing_of_parent_or_template(executor: Executor) -> None:
    left, right = os.pipe()
    executor.submit(Call.of(calls.lists_descriptors))

    (report,) = collect(executor, 1)
    theirs = load_value(report)
    output, channel = theirs[1], [t for t in theirs.values() if t.startswith("socket:")]

    # What is its own: the pipe of its output, and one socket to the parent.
    assert output.startswith("pipe:")
    assert len(channel) == 1
    assert set(theirs.values()) == {"/dev/null", output, *channel}
    assert not set(channel) & set(open_fds().values())  # the other end has another number
    os.close(left)
    os.close(right)


@pytest.mark.parametrize("launcher", ["copy", "template"])
def test_killed_template_loses_no_outcome_and_is_replaced(launcher: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with Executor(concurrency=5, standby=1, launcher=launcher, source=SOURCE) as executor:
        for number in range(3):
            executor.submit(Call.of(calls.ends_after, str(go), number))
        executor.submit(Call.of(calls.ends_after, str(go), 3, exit_code=7))
        executor.submit(Call.of(calls.ends_after, str(go), 4, number=9))
        # All of them born, also the one on standby: one on its way would be nobody's.
        eventually(
            lambda: (
                executor.poll(0.05) == []
                and executor.running == 5
                and len(executor.child_pids) == 6
            )
        )
        first = template_of(executor)

        os.kill(first, signal.SIGKILL)
        eventually(lambda: executor.poll(0.05) == [] and first not in executor.all_pids)
        go.touch()
        reports = collect(executor, 5)
        executor.submit(Call.of(calls.returns, 1))
        (after,) = collect(executor, 1)

        assert sorted(load_value(r) for r in reports if r.outcome is Outcome.RETURNED) == [0, 1, 2]
        by_outcome = {report.outcome: report for report in reports}
        assert by_outcome[Outcome.EXITED].exit_code == 7
        assert by_outcome[Outcome.KILLED].signal == signal.SIGKILL
        assert all(r.usage is not None for r in reports)
        assert after.outcome is Outcome.RETURNED
        assert template_of(executor) != first
        assert not alive(first)


@pytest.mark.parametrize("launcher", ["copy", "template"])
def test_template_that_is_found_dead_when_it_is_asked_is_replaced(
    launcher: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its death was not heard of before: a question meets a closed socket."""
    with Executor(standby=0, launcher=launcher, source=SOURCE) as executor:
        executor.submit(Call.of(calls.returns, 1))
        collect(executor, 1)
        eventually(lambda: executor.poll(0.05) == [] and executor.is_empty)
        first = template_of(executor)

        os.kill(first, signal.SIGKILL)
        eventually(lambda: not alive(first))
        executor._runner.supervisor.spawn()  # without a look at what happened before
        executor.submit(Call.of(calls.returns, 2))
        (report,) = collect(executor, 1)

        assert load_value(report) == 2
        assert template_of(executor) != first
    assert f"The template {first} died, or was killed." in caplog.text


def test_template_serves_a_thousand_children_without_growing() -> None:
    with Executor(concurrency=2, launcher="copy") as executor:
        executor.submit(Call.of(calls.returns, 1))
        collect(executor, 1)
        descriptors = len(open_fds(template_of(executor)))
        for _ in range(1_000):
            executor.submit(Call.of(calls.returns, 1))

        reports = collect(executor, 1_000, within=110)

        assert {report.outcome for report in reports} == {Outcome.RETURNED}
        assert len({report.child_pid for report in reports}) == 1_000
        eventually(lambda: len(open_fds(template_of(executor))) <= descriptors)


def test_children_that_serve_several_calls_work_from_a_template() -> None:
    with Executor(concurrency=1, standby=0, policy=AfterCalls(3), launcher="copy") as executor:
        for number in range(6):
            executor.submit(Call.of(calls.returns, number))

        reports = collect(executor, 6)

    assert [report.child_index for report in reports] == [1, 2, 3, 1, 2, 3]


def test_hooks_before_the_fork_run_once_for_the_template() -> None:
    ran: list[int] = []
    terms = Terms(before_fork=(lambda: ran.append(os.getpid()),))

    with Executor(standby=0, launcher="copy", terms=terms) as executor:
        for number in range(3):
            executor.submit(Call.of(calls.returns, number))
        collect(executor, 3)

    assert ran == [os.getpid()]


def test_answer_that_came_while_the_parent_stood_still_counts(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine may stand still for longer than a template may take to answer."""
    executor.submit(Call.of(calls.returns, 1))
    executor.poll(0)  # asks for a child
    (control,) = executor._runner.supervisor.launcher._templates()
    eventually(lambda: select.select([control.control], [], [], 0.5)[0])

    executor._runner.supervisor.launcher.keep_time(time.monotonic() + 3_600)
    (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RETURNED
    assert template_of(executor) == control.pid


# The end


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """More are open than select(2) can name: a server with many connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    null = os.open(os.devnull, os.O_RDONLY)
    held = [null, *(os.dup(null) for _ in range(1_100))]
    yield
    for fd in held:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("launcher", ["copy", "template"])
def test_host_with_many_descriptors_can_close(launcher: str) -> None:
    before = children_of(), open_fds()
    executor = Executor(standby=0, launcher=launcher, source=SOURCE)
    executor.submit(Call.of(calls.returns, 1))
    collect(executor, 1)

    executor.close()

    assert (children_of(), open_fds()) == before


@pytest.mark.parametrize("number", [errno.ESRCH, errno.EMFILE])
def test_template_whose_end_cannot_be_watched_is_ended(
    number: int, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor.submit(Call.of(calls.returns, 1))
    collect(executor, 1)
    template = template_of(executor)

    def refusing(pid: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refusing)
    executor.dismiss_standby()
    eventually(lambda: executor.poll(0.05) == [] and executor.is_empty)
    executor.close()

    assert not alive(template)
    assert children_of() == set()
