"""
Parent side: did the kernel kill a process because memory ran out?

A death by SIGKILL looks the same whoever sent it. But the kernel counts its own: in our
cgroup (`memory.events`, those of this service or container), else for the whole machine
(`/proc/vmstat`), where the victim may have been a stranger's.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

#: The leaf in which cgroup.py keeps this process.
PARENT = "dayfly-parent"
_LOOK_SECONDS = 1.0
#: How long before a death is seen its kill may have been counted: what held many gigabytes takes
#: seconds to go. Where strangers' kills are counted, too, it has less time, as they are no evidence.
_LAG_SECONDS = 10.0
_LAG_AMONG_STRANGERS_SECONDS = 2.0


class KernelKills:
    """Remembers how many there were lately."""

    def __init__(self, *, proc: str = "/proc", cgroup_root: str = "/sys/fs/cgroup") -> None:
        #: Whether only kills among our own cgroup's processes are counted.
        self.are_ours = False
        self._path = f"{proc}/vmstat"
        # In the leaf, if we are there: what is beside it, kills of limited children, is theirs.
        own = _cgroup_of_us(proc=proc, cgroup_root=cgroup_root)
        if own is not None and (own / "memory.events").exists():
            self._path = str(own / "memory.events")
            self.are_ours = True
        self._lag_seconds = _LAG_SECONDS if self.are_ours else _LAG_AMONG_STRANGERS_SECONDS
        #: Moments and counts of the last looks, down to the one that deaths of now are compared with.
        self._looks = deque([(time.monotonic(), self._count())])
        #: Kills up to this count are put down to deaths.
        self._accounted = 0

    def look(self) -> None:
        """Take note of the count; call it often while children run. Reads at most once a second."""
        now = time.monotonic()
        if now - self._looks[-1][0] < _LOOK_SECONDS:
            return
        self._looks.append((now, self._count()))
        while self._looks[0][0] < now - self._lag_seconds:
            self._looks.popleft()

    def claim_one(self) -> bool:
        """Tell whether the kernel killed lately, and count that kill for the death that is asked about."""
        before = max(self._looks[0][1], self._accounted)
        if self._count() <= before:
            return False
        self._accounted = before + 1
        return True

    def _count(self) -> int:
        try:
            with open(self._path, "rb", buffering=0) as file:
                # Not split into its 200 lines: the parent's memory stays as it is.
                text = b"\n" + file.read(1 << 14)
        except OSError:
            return 0
        _, _, rest = text.partition(b"\noom_kill ")
        return int(rest.split(None, 1)[0]) if rest else 0


def own_cgroup(*, proc: str = "/proc", cgroup_root: str = "/sys/fs/cgroup") -> Path | None:
    """Return the directory of the cgroup that holds us and our children, version 2. Source: cgroups(7)."""
    place = _cgroup_of_us(proc=proc, cgroup_root=cgroup_root)
    if place is not None and place.name == PARENT:
        # Where cgroup.py put us, or the program that we were before exec.
        place = place.parent
    return place if place is not None and (place / "cgroup.procs").exists() else None


def _cgroup_of_us(*, proc: str, cgroup_root: str) -> Path | None:
    try:
        lines = Path(proc, "self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::/"):
            return Path(cgroup_root, line[len("0::/") :])
    return None
