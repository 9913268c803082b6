"""What tests ask of the system. No Django in here."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dayfly.executor import Call, ChildExit, Executor, Outcome, RunReport, load_value

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")


class Patience:
    """
    A limit for waiting that a machine which stands still does not use up.

    Virtual machines do so for many seconds: everything is late then, and nothing is wrong.
    """

    #: What one look at the clock counts for at most.
    MOST_SECONDS = 0.5

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self._looked = time.monotonic()

    def is_over(self) -> bool:
        """Tell whether there was time enough; to be asked again and again."""
        now = time.monotonic()
        self.left -= min(now - self._looked, self.MOST_SECONDS)
        self._looked = now
        return self.left <= 0


def eventually(condition: Callable[[], T], *, within: float = 15.0, what: str = "") -> T:
    """Return the first true value of *condition*; fail when there is none *within* seconds."""
    patience = Patience(within)
    while not (value := condition()):
        if patience.is_over():
            raise AssertionError(f"not within {within:g} s: {what or condition}")
        time.sleep(0.005)
    return value


def state_of(pid: int) -> str | None:
    """Return the state letter of proc(5), "Z" for a zombie; None when *pid* is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rpartition(")")[2].split()[0]


def alive(pid: int) -> bool:
    """Tell whether *pid* still runs; a zombie does not."""
    return state_of(pid) not in (None, "Z", "X")


def children_of(pid: int | None = None) -> set[int]:
    """Return the pids of the children of *pid* (default: ours), zombies too."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
        try:
            found.update(int(word) for word in (task / "children").read_text().split())
        except FileNotFoundError:
            pass  # the thread ended meanwhile
    return found


def children_of_worker(pid: int) -> set[int]:
    """Return the pids of a worker's children: those of its template, which forks them."""
    return {child for template in children_of(pid) for child in children_of(template)}


def open_fds(pid: int | None = None) -> dict[int, str]:
    """Return what the descriptors of *pid* (default: ours) refer to."""
    found = {}
    directory = f"/proc/{pid or os.getpid()}/fd"
    for name in os.listdir(directory):
        try:
            found[int(name)] = os.readlink(f"{directory}/{name}")
        except FileNotFoundError:
            pass  # the descriptor of the listing itself
    return found


def threads() -> set[int]:
    """Return the ids of our threads, those of C libraries too."""
    return {int(name) for name in os.listdir("/proc/self/task")}


def footprint() -> tuple[set[int], dict[int, str], list[str]]:
    """Return our children, our descriptors, and the threads of our pools."""
    names = [thread.name for thread in threading.enumerate()]
    return children_of(), open_fds(), [name for name in names if name.startswith("dayfly")]


def collect(executor: Executor, count: int, *, within: float = 30.0) -> list[RunReport]:
    """Poll until *count* reports are in."""
    found: list[RunReport] = []
    patience = Patience(within)
    while len(found) < count:
        assert not patience.is_over(), f"{len(found)} of {count} reports within {within:g} s"
        found += executor.poll(timeout=Patience.MOST_SECONDS)
    return found


def child_runs(function: object, *args: object) -> object:
    """Return what *function* returns in a child of its own."""
    with Executor(standby=0) as executor:
        executor.submit(Call.of(function, *args))
        (report,) = collect(executor, 1)
    assert report.outcome is Outcome.RETURNED, report.message
    return load_value(report)


def collect_exits(executor: Executor, count: int, *, within: float = 15.0) -> list[ChildExit]:
    """Poll until *count* exits are known."""
    found: list[ChildExit] = []

    def enough() -> bool:
        executor.poll(timeout=0.05)
        found.extend(executor.take_exits())
        return len(found) >= count

    eventually(enough, within=within, what=f"{count} exits of children")
    return found


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which a fresh interpreter finds dayfly and the tests."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, **more}


def run_script(code: str, *arguments: str, within: float = 60.0, **more: str) -> str:
    """Run *code* in a fresh interpreter, warnings as errors; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
