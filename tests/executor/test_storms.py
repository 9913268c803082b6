"""Ten thousand children under a storm of signals, and life as PID 1. In interpreters of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from tests.helpers import environment, run_script

#: All on the one that costs least; straight from the parent takes twice as long. The others go the same way.
FORKS = {"copy": 10_000, "template": 4_000, "fork": 2_000}

STORM = """
    import collections, json, os, signal, subprocess, sys
    from dayfly.executor import Call, Executor, Outcome, Source, Terms, memory
    from tests.calls import returns
    from tests.helpers import children_of, open_fds, threads

    forks, launcher = int(sys.argv[1]), sys.argv[2]
    heard = collections.Counter()
    handled_in = set()

    def handle(number, frame):
        heard[number] += 1
        handled_in.add(os.getpid())

    STORM = (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    for number in STORM:
        signal.signal(number, handle)
    before = open_fds(), threads()
    code = (
        "import os, sys, time\\n"
        "pid, numbers = int(sys.argv[1]), [int(n) for n in sys.argv[2:]]\\n"
        "while os.getppid() == pid:\\n"
        "    for number in numbers:\\n"
        "        os.kill(pid, number)\\n"
        "    time.sleep(0.002)\\n"
    )
    command = [sys.executable, "-S", "-c", code, str(os.getpid()), *map(str, map(int, STORM))]
    storm = subprocess.Popen(command)
    # Made before, so that the host grows by nothing of its own.
    seen = {str(number): 0 for number in range(forks)}
    done = 0
    held = []

    def look():
        held.append([
            memory.quick(pid).anon_bytes
            for pid in (os.getpid(), *sorted(set(executor.all_pids) - set(executor.child_pids)))
        ])

    outcomes = collections.Counter()
    source = Source(preload=("tests.calls",))
    with Executor(concurrency=4, standby=4, launcher=launcher, source=source) as executor:
        executor.warm_up()
        # A few at a time: all at once would measure the queue.
        submitted = 0
        while done < forks:
            while submitted < forks and executor.waiting < 8:
                call = Call(call_id=str(submitted), target="tests.calls.raw_upper", payload=b"x",
                            memory_in_detail=False)
                executor.submit(call)
                submitted += 1
            for report in executor.poll(timeout=5):
                seen[report.call_id] += 1
                outcomes[report.outcome.value] += 1
                done += 1
                if done in (forks // 5, forks):
                    look()
    storm.kill()
    storm.wait()
    after = open_fds(), threads()
    print(json.dumps({
        "reports": len(seen), "least": min(seen.values()), "most": max(seen.values()),
        "outcomes": outcomes, "held": held,
        "heard": {int(number): count for number, count in heard.items()},
        "handled elsewhere": len(handled_in - {os.getpid()}),
        "children left": len(children_of()), "started": executor.started,
        "same descriptors": before[0] == after[0], "same threads": before[1] == after[1],
    }))
"""


@pytest.mark.timeout(420)
@pytest.mark.parametrize("launcher", FORKS)
def test_no_child_is_lost_doubled_or_left_under_a_storm_of_signals(launcher: str) -> None:
    forks = FORKS[launcher]

    out = run_script(STORM, str(forks), launcher, within=400)

    found = json.loads(out)
    heard = found.pop("heard")
    first, last = found.pop("held")
    assert found == {
        "reports": forks,
        "least": 1,
        "most": 1,
        "outcomes": {"returned": forks},
        "handled elsewhere": 0,
        "children left": 0,
        "started": forks,
        "same descriptors": True,
        "same threads": True,
    }
    # Host and template stay as small as they were, over thousands of children.
    assert len(first) == len(last) == (1 if launcher == "fork" else 2)
    assert max(after - before for before, after in zip(first, last, strict=True)) < 500_000
    assert len(heard) == 3
    assert min(heard.values()) > 100


AS_PID_1 = """
    import json, os, signal, sys
    from dayfly.executor import Call, Executor
    from tests.helpers import children_of, eventually, state_of
    from tests.limit_calls import leaves_an_orphan

    assert os.getpid() == 1
    done = reaped = 0
    with Executor(concurrency=2, standby=1, launcher=sys.argv[1]) as executor:
        for _ in range(int(sys.argv[2])):
            executor.submit(Call.of(leaves_an_orphan))
        while executor.has_work:
            done += len(executor.poll(timeout=5))
            reaped += executor.reap_orphans()
    def all_gone():
        global reaped
        reaped += executor.reap_orphans()
        return not children_of(1)
    eventually(all_gone, what="the end of the orphans")
    print(json.dumps({"done": done, "reaped": reaped, "left": len(children_of(1))}))
"""


def can_be_pid_1() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_be_pid_1(), reason="needs the right to make a PID namespace")
@pytest.mark.parametrize(("launcher", "count"), [("copy", 300), ("fork", 100)])
def test_no_zombie_is_left_as_pid_1(launcher: str, count: int) -> None:
    """Each call leaves a process behind that outlives it, as daemons do: they pass to the template, or to PID 1."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable]
    done = subprocess.run(
        [*command, "-W", "error", "-c", textwrap.dedent(AS_PID_1), launcher, str(count)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    told = json.loads(done.stdout)
    assert (told["done"], told["left"]) == (count, 0)
    assert told["reaped"] == count or launcher == "copy"  # the template has waited for most of them


def test_process_that_is_nobodys_last_parent_reaps_nothing() -> None:
    from dayfly.executor import Executor, orphans

    own = subprocess.Popen(["true"])
    try:
        with Executor(standby=0) as executor:
            assert executor.reap_orphans() == 0
    finally:
        own.wait()

    assert own.returncode == 0
    assert orphans.inherits() is False


def test_known_children_are_left_to_those_who_wait_for_them() -> None:
    from dayfly.executor import orphans

    known = subprocess.Popen(["true"])
    os.waitid(os.P_PID, known.pid, os.WEXITED | os.WNOWAIT)

    assert orphans.reap({known.pid}) == 0
    other = subprocess.Popen(["true"])
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert orphans.reap({known.pid}) == 1  # also behind one that is known
    other.returncode = 0  # its status is gone; no ResourceWarning
    assert orphans.reap({known.pid}) == 0
    assert not orphans.is_childless()

    assert known.wait() == 0
    assert orphans.reap(()) == 0
