"""
Parent side: a cgroup of its own for each child with a memory limit, where that is ours to make.

A cgroup counts every page at once, of every process that was started in it, daemons too,
and the kernel kills at the limit: nothing is too fast for it. It takes version 2 with the
memory controller, and a subtree that was delegated to us (systemd: Delegate=yes).

    ours/            where we were; no process may stay, or it could have no limited children
      dayfly-parent/ this process and those that have no limit, from now on
      dayfly-4711/   a child, and all that it starts

Source: cgroups(7), Documentation/admin-guide/cgroup-v2.rst of Linux.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from dayfly.executor import kin
from dayfly.executor.kernelkills import PARENT, own_cgroup

logger = logging.getLogger("dayfly.executor")

#: How long `close` waits for processes that were killed with a child, and take longer than it.
_DYING_SECONDS = 1.0


def is_delegated(place: Path) -> bool:
    """
    Tell whether *place* is ours to divide.

    Root may write everywhere, so for root systemd's mark counts, and for others the right to write.
    """
    if not all(
        os.access(place / name, os.W_OK) for name in (".", "cgroup.procs", "cgroup.subtree_control")
    ):
        return False
    if os.geteuid() != 0:
        return True
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(place, name) == b"1":
                return True
    return False


class Cgroups:
    """The cgroups of one executor's children, below *place*."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._known: set[int] = set()
        #: What the kernel had counted in each before its current call.
        self._before: dict[int, _Counts] = {}
        #: Of children that are reaped, not removed yet: a daemon lives in them, or the last of a
        #: family that was killed is about to die. Whether the latter, by the child's pid.
        self._left: dict[int, bool] = {}

    @classmethod
    def take_delegated(
        cls,
        *,
        proc: str = "/proc",
        cgroup_root: str = "/sys/fs/cgroup",
        may_take: Callable[[Path], bool] = is_delegated,
    ) -> Self | None:
        """
        Move this process, and all that it started, into a leaf of its cgroup; None if it may not.

        For a process that owns its cgroup alone: with others in it the kernel refuses the next step,
        and nothing changes.
        """
        place = own_cgroup(proc=proc, cgroup_root=cgroup_root)
        if place is None or not may_take(place):
            logger.debug("No cgroup was delegated to this process: memory limits go by sampling.")
            return None
        try:
            if "memory" not in _read(place / "cgroup.controllers").split():
                return None
            (place / PARENT).mkdir(exist_ok=True)
            _move_us(place / PARENT)
            try:
                _write(place / "cgroup.subtree_control", "+memory")
            except OSError:
                _move_us(place)
                (place / PARENT).rmdir()
                raise
        except OSError as error:
            logger.warning(
                "The cgroup %s cannot be divided (%s): memory limits go by sampling.",
                place,
                error.strerror,
            )
            return None
        return cls(place)

    def confine(self, pid: int, memory_bytes: int | None) -> None:
        """Let the child *pid* hold *memory_bytes* more than it does now; None: as much as it likes."""
        self._sweep()
        if memory_bytes is None and pid not in self._known:
            return
        group = self._of(pid)
        with contextlib.suppress(OSError):
            if pid not in self._known:
                group.mkdir(exist_ok=True)
                self._known.add(pid)
                self._left.pop(pid, None)  # the number of another child, whose daemon lives
                for name, text in (("memory.oom.group", "1"), ("memory.swap.max", "0")):
                    # Without the latter the limit is one of pages in memory: the rest is swapped out.
                    with contextlib.suppress(OSError):
                        _write(group / name, text)
            held = _read(group / "memory.current") if memory_bytes is not None else ""
            limit = "max" if memory_bytes is None else str(int(held or 0) + memory_bytes)
            _write(group / "memory.max", limit)
            # Pages that it has already stay with the cgroup where it got them.
            _write(group / "cgroup.procs", str(pid))
            self._before[pid] = _counts_in(group)

    def holds(self, pid: int) -> bool:
        """Tell whether the child is in a cgroup of its own, which then counts all kills of it."""
        return pid in self._before

    def was_killed(self, pid: int) -> bool:
        """Tell whether the kernel killed in this child's cgroup since its current call began."""
        return self.holds(pid) and _counts_in(self._of(pid)).kills > self._before[pid].kills

    def was_full(self, pid: int) -> bool:
        """
        Tell whether it did so at the limit of this very cgroup, not of one around it or the machine's.

        Source: Documentation/admin-guide/cgroup-v2.rst, memory.events: `oom_kill` counts kills "by
        any kind of OOM killer", `oom` how often the cgroup's own usage was at its limit.
        """
        return (
            self.was_killed(pid)
            and _counts_in(self._of(pid)).full_times > self._before[pid].full_times
        )

    def kill(self, pid: int) -> None:
        """Kill all that is in the child's cgroup, daemons too."""
        if pid in self._known:
            with contextlib.suppress(OSError):
                _write(self._of(pid) / "cgroup.kill", "1")
                self._left[pid] = True

    def remove(self, pid: int) -> None:
        """Remove the cgroup of a child that was reaped, as soon as nothing lives in it."""
        if pid in self._known:
            # A daemon that lives in it keeps its limit.
            self._left[pid] = self._left.get(pid, False) or self.was_killed(pid)
            self._known.discard(pid)
            self._before.pop(pid, None)
            self._sweep()

    def close(self) -> None:
        """Remove what is left of the children's. This process stays in its leaf."""
        for pid in list(self._known):
            self.remove(pid)
        deadline = time.monotonic() + _DYING_SECONDS
        while any(self._left.values()) and time.monotonic() < deadline:
            time.sleep(0.002)
            self._sweep()

    def _sweep(self) -> None:
        for pid in [pid for pid in self._left if pid not in self._known]:
            try:
                self._of(pid).rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                continue  # something lives in it
            del self._left[pid]

    def _of(self, pid: int) -> Path:
        return self._place / f"dayfly-{pid}"


class _Counts(NamedTuple):
    """Of a cgroup's memory.events."""

    kills: int
    full_times: int


def _counts_in(group: Path) -> _Counts:
    found = dict(line.split(" ", 1) for line in _read(group / "memory.events").splitlines())
    return _Counts(kills=int(found.get("oom_kill", 0)), full_times=int(found.get("oom", 0)))


def _move_us(place: Path) -> None:
    moved: set[int] = set()
    # Again and again: a process that was not moved yet may have started another meanwhile.
    while left := {os.getpid(), *kin.descendants(os.getpid())} - moved:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                _write(place / "cgroup.procs", str(pid))
        moved |= left


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _write(path: Path, text: str) -> None:
    # One write(2): the kernel takes each for a whole request.
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())
