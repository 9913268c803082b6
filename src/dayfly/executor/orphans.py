"""
Parent side: dead processes that nobody else waits for, where this process is their last parent.

A process whose parent died passes to the nearest subreaper, or to PID 1: in a container that is
mostly this one. Unless somebody waits for it when it dies, it stays in the table as a zombie.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Collection

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

    Looks before it waits (WNOWAIT), as those in *known* are somebody's to wait for. One of them
    that is dead hides those behind it, until it was waited for.
    """
    count = 0
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return count  # there is no child at all
        if found is None or found.si_pid in known:
            return count
        try:
            os.waitpid(found.si_pid, os.WNOHANG)
        except ChildProcessError:
            pass  # somebody was faster
        count += 1
