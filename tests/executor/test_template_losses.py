"""A template that dies or hangs with children on their way: none is lost, and none is left as a zombie."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from dayfly.executor import (
    AfterCalls,
    Call,
    Executor,
    Limits,
    Outcome,
    Source,
    Terms,
    load_value,
    run_call,
    template_link,
)
from dayfly.executor import template as template_side
from tests import calls, limit_calls
from tests.helpers import alive, children_of, collect, environment, eventually, state_of

LAUNCHERS = ("copy", "template")
#: Makes an executor whose first template comes to the end that is named.
Make = Callable[..., Executor]


@pytest.fixture(params=LAUNCHERS)
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    once = tmp_path / "once"
    once.touch()
    monkeypatch.setenv("DAYFLY_TEST_ONCE", str(once))

    def make(end: Callable[[], None], **options: object) -> Executor:
        return Executor(
            launcher=request.param,
            # Both are run in the template alone: the first in a fresh one, the second in a copy.
            source=Source(set_up=f"tests.calls.{end.__name__}", preload=("tests.calls",)),
            terms=Terms(after_fork=(end,)),
            **{"standby": 0, **options},  # type: ignore[arg-type]
        )

    return make


def zombies(parent: int | None = None) -> set[int]:
    return {pid for pid in children_of(parent) if state_of(pid) == "Z"}


def template_of(executor: Executor) -> int:
    (pid,) = set(executor.all_pids) - set(executor.child_pids)
    return pid


def test_child_whose_template_died_before_it_was_named_runs_the_call(make: Make) -> None:
    with make(calls.template_that_dies_after_its_first_fork) as executor:
        executor.submit(Call.of(calls.pid))

        (report,) = collect(executor, 1)

        assert report.outcome is Outcome.RETURNED
        assert load_value(report) == report.child_pid
        assert report.fork_seconds is None  # nobody has told
        assert report.usage is not None
        # It was adopted: no second template was needed.
        eventually(lambda: executor.poll(0.05) == [] and executor.is_empty)
        assert executor.all_pids == []
        assert zombies() == set()


@pytest.mark.parametrize(
    "end", [calls.template_that_dies_with_the_newborn, calls.template_that_dies_with_the_child]
)
def test_child_that_died_with_its_template_is_waited_for(
    make: Make, end: Callable[[], None]
) -> None:
    with make(end) as executor:
        executor.submit(Call.of(calls.returns, 1))

        (report,) = collect(executor, 1)

        assert load_value(report) == 1
        eventually(lambda: executor.poll(0.05) == [] and executor.is_empty)
        assert zombies() == set()


def test_child_of_a_template_that_hangs_is_taken_over(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(template_link, "ANSWER_SECONDS", 0.5)
    with make(calls.template_that_hangs_after_its_first_fork) as executor:
        executor.submit(Call.of(calls.returns, 1))

        (report,) = collect(executor, 1)

        assert load_value(report) == 1
        assert "is killed: it does not answer" in caplog.text
        eventually(lambda: executor.poll(0.05) == [] and executor.is_empty)
        assert zombies() == set()


def test_closing_with_a_child_on_its_way_leaves_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_link, "LEAVE_SECONDS", 0.2)
    before = children_of()
    executor = make(calls.template_that_hangs_after_its_first_fork)
    executor.submit(Call.of(calls.returns, 1))

    def hangs() -> bool:
        executor.poll(0.05)
        return any(state_of(pid) == "T" for pid in executor.all_pids)

    eventually(hangs)
    executor.close(leave_seconds=0.1)

    assert children_of() == before


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_templates_killed_again_and_again_leave_no_zombie(launcher: str) -> None:
    """As a library host: nobody waits for any child. Its own dead child stays its own."""
    own = subprocess.Popen(["true"])
    eventually(lambda: state_of(own.pid) == "Z")
    with Executor(
        concurrency=3, standby=3, launcher=launcher, source=Source(preload=("tests.calls",))
    ) as executor:
        done = 0
        for number in range(12):
            for each in range(6):
                executor.submit(Call.of(calls.returns, each))
            eventually(lambda: done_now(executor) or executor.child_pids, within=60)
            for pid in set(executor.all_pids) - set(executor.child_pids):
                os.kill(pid, signal.SIGKILL)
            executor.poll(0)
            done = number
        while executor.has_work:
            executor.poll(1)
        executor.dismiss_standby()
        eventually(lambda: executor.poll(0.05) == [] and executor.is_empty)

        assert done == 11
        assert zombies() == {own.pid}
    assert own.wait() == 0


def done_now(executor: Executor) -> bool:
    executor.poll(0.02)
    return not executor.has_work


def test_call_that_has_templates_of_its_own_gets_their_children(tmp_path: Path) -> None:
    """Its process is a copy of one that has templates, too."""
    call = Call.of(limit_calls.kills_the_template_of_its_call, str(tmp_path / "mark"))
    with Executor(standby=0, launcher="copy") as executor:
        executor.submit(call)
        (report,) = collect(executor, 1)

    assert load_value(report) == (Outcome.KILLED, signal.SIGTERM)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_what_calls_leave_behind_is_no_zombie_of_the_host(launcher: str) -> None:
    """Neither what a call left, nor what was killed with it. A host may not wait for what it does not know."""
    before = children_of()
    source = Source(preload=("tests.limit_calls",))
    with Executor(concurrency=3, standby=0, launcher=launcher, source=source) as executor:
        for _ in range(3):
            executor.submit(Call.of(limit_calls.leaves_an_orphan))
            limits = Limits(timeout_seconds=0.1, grace_seconds=0)
            executor.submit(Call.of(subprocess.run, ["sleep", "60"], limits=limits))
        collect(executor, 6)
        template = template_of(executor)

        eventually(lambda: executor.poll(0.05) == [] and not children_of(template))
        assert children_of() - before == {template}

    assert children_of() == before


def test_long_lived_child_lets_no_zombies_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The template hears nothing while its child serves call after call."""
    monkeypatch.setattr(template_side, "LOOK_SECONDS", 0.05)
    with Executor(standby=0, launcher="copy", policy=AfterCalls(0)) as executor:
        for _ in range(3):
            executor.submit(Call.of(limit_calls.leaves_an_orphan))
        (child,) = {report.child_pid for report in collect(executor, 3)}

        eventually(lambda: children_of(template_of(executor)) == {child})


def test_dead_orphans_are_waited_for_before_the_template_rests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(template_side, "LOOK_SECONDS", 1_000)
    before = children_of()
    with Executor(standby=0, launcher="copy") as executor:
        executor.submit(Call.of(limit_calls.leaves_an_orphan))
        collect(executor, 1)
        template = template_of(executor)
        eventually(lambda: executor.poll(0.05) == [] and executor.is_empty)
        eventually(lambda: zombies(template) == children_of(template) != set())

        executor._runner.supervisor.launcher.rest()
        assert not alive(template)
        assert children_of() == before


def test_process_that_outlives_its_template_lives_on(tmp_path: Path) -> None:
    report = run_call(
        Call.of(limit_calls.exits_with_a_daemon, str(tmp_path / "mark")), launcher="copy"
    )

    daemon = load_value(report)
    assert alive(daemon)
    os.kill(daemon, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(daemon, 0)  # ours, as the template left before it


HOST = """
    import os
    import signal
    import sys

    from dayfly.executor import Call, Executor, Source
    from tests import calls
    from tests.helpers import children_of, eventually

    launcher, mark = sys.argv[1:]
    source = Source(preload=("tests.calls",))
    executor = Executor(launcher=launcher, standby=0, source=source)
    executor.submit(Call.of(calls.waits, mark))
    eventually(lambda: executor.poll(0.05) or os.path.exists(mark), within=60)
    (template,) = set(executor.all_pids) - set(executor.child_pids)
    executor.standby = 2
    executor.poll(0)
    # The first of these was told before the second was forked.
    eventually(lambda: len(children_of(template)) == 3)
    print(*children_of(template), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


HOST_WITH_A_COPY = """
    import os
    import signal
    import sys

    from dayfly.executor import Call, Executor, Source
    from tests import calls
    from tests.helpers import eventually

    launcher, mark = sys.argv[1:]
    executor = Executor(launcher=launcher, standby=0, source=Source(preload=("tests.calls",)))
    executor.submit(Call.of(calls.waits, mark))
    eventually(lambda: executor.poll(0.05) or os.path.exists(mark), within=60)
    copy = os.fork()
    if copy == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        signal.alarm(60)
        signal.pause()
    print(copy, *executor.all_pids, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_children_end_with_a_host_that_dies_with_answers_unread(
    launcher: str, tmp_path: Path
) -> None:
    """The system then ends the template's socket by an error, not by end-of-file."""
    command = [sys.executable, "-c", textwrap.dedent(HOST), launcher, str(tmp_path / "mark")]
    host = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, timeout=90)

    assert host.returncode == -signal.SIGKILL
    pids = [int(word) for word in host.stdout.split()]
    assert len(pids) == 3
    try:
        eventually(lambda: not any(map(alive, pids)), what="the end of the children")
    finally:
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_children_end_with_a_host_of_which_a_copy_lives_on(launcher: str, tmp_path: Path) -> None:
    """As multiprocessing makes them: it holds what the host held, and the socket has no end."""
    script = textwrap.dedent(HOST_WITH_A_COPY)
    command = [sys.executable, "-c", script, launcher, str(tmp_path / "mark")]
    host = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, timeout=90)
    copy, *pids = (int(word) for word in host.stdout.split())

    try:
        assert len(pids) == 2
        eventually(lambda: not any(map(alive, pids)), what="the end of the children")
        assert alive(copy)
    finally:
        for pid in filter(alive, [copy, *pids]):
            os.kill(pid, signal.SIGKILL)
