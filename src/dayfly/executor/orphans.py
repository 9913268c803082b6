"""
Both sides: dead processes that nobody else waits for, where this process is their last parent.

A process whose parent died passes to the nearest subreaper, or to PID 1: of what a child of a template
left behind, that is the template; else, in a container, mostly the host. Unless somebody waits for it
when it dies, it stays in the table as a zombie.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Collection

from dayfly.executor import kin

_PR_GET_CHILD_SUBREAPER = 37
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def inherits() -> bool:
    """Tell whether orphans pass to this process. Source: prctl(2), PR_SET_CHILD_SUBREAPER."""
    if os.getpid() == 1:
        return True
    flag = ctypes.c_int(0)
    if _prctl is not None:
        _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0)
    return flag.value == 1


def reap(known: Collection[int]) -> int:
    """
    Wait for the dead children of this process that are not in *known*; return how many there were.

    Looks before it waits (WNOWAIT), as those in *known* are somebody's to wait for.
    """
    count = 0
    try:
        while (pid := _first_dead()) is not None and pid not in known:
            count += _wait_for(pid)
    except ChildProcessError:
        return count
    if pid is not None:  # it hides those behind it
        count += sum(_wait_for(other) for other in kin.children(os.getpid()) if other not in known)
    return count


def is_childless() -> bool:
    """Tell whether this process has no child at all, alive or dead."""
    try:
        _first_dead()
    except ChildProcessError:
        return True
    return False


def _first_dead() -> int | None:
    found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return None if found is None else found.si_pid


def _wait_for(pid: int) -> bool:
    """Wait for a child if it is dead."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False  # somebody was faster
