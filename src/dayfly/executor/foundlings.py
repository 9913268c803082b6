"""
Parent side: children whose template died before it could tell their pid.

They are looked for only when that has happened, so that births cost nothing more. One that lives
is known by the line to us that it holds. One that is dead has no lines any more; it is known by its
name, its group, and by being nobody's: children of the host are never touched.
"""

from __future__ import annotations

import contextlib
import os
import socket

from dayfly.executor import kin
from dayfly.executor.children import is_known

#: /proc/self/task/*/children may leave one out while another ends: see proc(5).
_LOOKS = 3
#: What template and child call themselves (/proc/pid/stat), before and after the child has its title.
NAMES = frozenset({b"dayfly-template", b"dayfly-child"})
#: Source: PF_EXITING in include/linux/sched.h. Such a process has closed its files already.
_EXITING = 0x4


def line_of(channel: socket.socket) -> str:
    """Return what the kernel calls *channel* in /proc/pid/fd."""
    return f"socket:[{os.fstat(channel.fileno()).st_ino}]"


def find(line: str) -> int | None:
    """Return the child of this process that holds *line*, or None."""
    for _ in range(_LOOKS):
        for pid in kin.children(os.getpid()):
            if not is_known(pid) and line in _lines(pid):
                return pid
    return None


def reap_dead(template_pid: int) -> None:
    """Wait for children of a template that is dead, and was waited for, which nobody knows of."""
    for pid in kin.children(os.getpid()):
        if not is_known(pid) and _is_dead_child(pid, template_pid):
            with contextlib.suppress(ChildProcessError):  # the host waits for any child
                os.waitpid(pid, 0)


def _lines(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # it ended
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def _is_dead_child(pid: int, template_pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            before, _, after = file.read(4096).rpartition(b")")
    except OSError:
        return False
    state, _, group, _, _, _, flags = after.split()[:7]
    is_dead = state == b"Z" or bool(int(flags) & _EXITING)
    # In the group of the template until it makes its own, the first thing that it does.
    is_ours = before.partition(b"(")[2] in NAMES and int(group) in (pid, template_pid)
    return is_dead and is_ours
