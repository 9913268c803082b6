"""
Parent side: the processes that a child started, and theirs.

They are in the child's process group, and one signal reaches all, unless they left it
(setsid, as `Popen(start_new_session=True)` does). Those are found as descendants.
One that left both, a daemon by double fork, is found by a cgroup only.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import TypeVar

from dayfly.executor import memory

_Number = TypeVar("_Number", int, float)

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """List the children of *pid*, dead ones too that nobody has waited for. Linux only."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children", "rb", buffering=0) as file:
                found += map(int, file.read(65536).split())
        except OSError:
            pass  # the thread ended, or the kernel has no such file (CONFIG_PROC_CHILDREN)
    return found


def descendants(pid: int) -> list[int]:
    """
    Return the living processes that *pid* started, and theirs.

    Source: proc(5), /proc/pid/task/tid/children.
    """
    if not memory.HAS_PROC:
        return _portable(pid)
    found: list[int] = []
    todo = [pid]
    while todo:
        born = children(todo.pop())
        found += born
        todo += born
    return found


def send(pid: int, number: int, escaped: list[int]) -> None:
    """
    Signal the child *pid*, its group, and the descendants that left that.

    The child is not reaped yet, so the number is still its own. Descriptors of those that left
    are added to *escaped*: when the child is dead they are nobody's descendants any more.
    """
    left = _outside_group(pid)
    for other in left:
        with contextlib.suppress(OSError):  # gone meanwhile
            fd = os.pidfd_open(other)
            # Still a descendant, so the number did not pass to a stranger before we had hold of it.
            if other in _outside_group(pid):
                escaped.append(fd)
            else:
                os.close(fd)
    send_to_escaped(escaped, number)
    try:
        os.killpg(pid, number)
        is_reached = os.getpgid(pid) == pid  # or it left the group, in which others are
    except ProcessLookupError:
        is_reached = False  # it has no group of its own yet (just forked), or the host reaped it
    except PermissionError:
        is_reached = False  # all that is left of its group runs as another user
    if not is_reached:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def send_to_escaped(escaped: list[int], number: int) -> None:
    """Signal the processes behind these descriptors."""
    for fd in escaped:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(fd, number)


def held_bytes(pid: int) -> int | None:
    """
    Sum what *pid* and its descendants hold (memory.held). None when *pid* is gone.

    More than the truth where descendants share memory: see `written_bytes`.
    """
    return _sum(memory.held, pid)


def written_bytes(pid: int, at_start: int) -> int:
    """Sum what *pid* holds beyond *at_start*, and what its descendants alone do. Slow: see memory.private."""
    own = max((memory.held(pid) or 0) - at_start, 0)
    return own + sum(memory.private(other) or 0 for other in descendants(pid))


def cpu_seconds(pid: int) -> float | None:
    """
    Sum the CPU time of *pid*, of its living descendants, and of those that were waited for.

    Source: proc(5), /proc/pid/stat, in ticks of 10 ms.
    """
    return _sum(_cpu_seconds, pid)


def _sum(read: Callable[[int], _Number | None], pid: int) -> _Number | None:
    total = read(pid)
    if total is not None:
        for other in descendants(pid):
            total += read(other) or 0
    return total


def _cpu_seconds(pid: int) -> float | None:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(4096).rpartition(b")")[2].split()
    except OSError:
        return None
    return sum(int(ticks) for ticks in fields[11:15]) / CLOCK_TICKS


def _outside_group(pid: int) -> list[int]:
    found = []
    for other in descendants(pid):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(other) != pid:
                found.append(other)
    return found


def _portable(pid: int) -> list[int]:
    import psutil

    try:
        return [process.pid for process in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []
