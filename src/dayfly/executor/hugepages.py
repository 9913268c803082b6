"""
Parent side: put the frozen heap into huge pages, so that a fork copies fewer page table entries.

A fork copies one entry for each 4 KiB page that the parent holds, and each child takes
them down again: most of the price of a process per task. One 2 MiB page is one entry.
"""

from __future__ import annotations

import ctypes
import sys

#: madvise(2): collapse now, whatever the system's setting is (Linux 6.1).
_MADV_COLLAPSE = 25
_HUGE_BYTES = 2 << 20


def collapse_heap() -> int:
    """
    Collapse the aligned ranges of this process's private anonymous memory; return how many were.

    Costs milliseconds for each, once, and up to 4 % of the process's memory, as ranges fill up. Where the
    kernel refuses, nothing changes. Worth it once the heap is frozen: what is written later splits again.
    Source: madvise(2), proc(5) /proc/pid/maps.
    """
    if sys.platform != "linux":
        return 0
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    count = 0
    for start, end in _private_anonymous():
        first = -(-start // _HUGE_BYTES) * _HUGE_BYTES
        for address in range(first, end - _HUGE_BYTES + 1, _HUGE_BYTES):
            count += madvise(address, _HUGE_BYTES, _MADV_COLLAPSE) == 0
    return count


def _private_anonymous() -> list[tuple[int, int]]:
    found = []
    with open("/proc/self/maps", "rb") as file:
        for line in file.read().splitlines():
            fields = line.split()
            is_anonymous = len(fields) == 5 or fields[5] == b"[heap]"
            if is_anonymous and fields[1] == b"rw-p":
                start, _, end = fields[0].partition(b"-")
                found.append((int(start, 16), int(end, 16)))
    return found
