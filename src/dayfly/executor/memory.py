"""
Both sides: read what a process holds, where the kernel tells the truth.

`quick` costs about 0.01 ms whatever the size; `thorough` walks the page tables:
0.1 ms at 13 MB, 0.6 ms at 35 MB, 5.9 ms at 437 MB.
"""

from __future__ import annotations

import resource
from pathlib import Path

from dayfly.executor.outcome import MemoryReading

PAGE_BYTES = resource.getpagesize()
HAS_PROC = Path("/proc/self/statm").exists()
HAS_ROLLUP = Path("/proc/self/smaps_rollup").exists()


def quick(pid: int | str = "self") -> MemoryReading | None:
    """
    Read resident and anonymous memory of *pid*; None when the process is gone.

    Source: proc(5), /proc/pid/statm: resident and shared (file and shmem) pages.
    """
    if not HAS_PROC:
        return _portable(pid)
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            fields = file.read(256).split()
    except OSError:  # gone, not ours, or no descriptor left to read it with
        return None
    if len(fields) < 3 or fields[1] == b"0":  # a zombie has no memory left to read
        return None
    resident, shared = int(fields[1]), int(fields[2])
    return MemoryReading(
        rss_bytes=resident * PAGE_BYTES, anon_bytes=max(resident - shared, 0) * PAGE_BYTES
    )


def thorough(pid: int | str = "self") -> MemoryReading | None:
    """
    Read RSS, anonymous, USS and PSS of *pid*; None when it is gone or not ours to read.

    Source: proc(5), /proc/pid/smaps_rollup, Linux 4.14 and later. Elsewhere: `quick`.
    """
    if not HAS_ROLLUP:
        return quick(pid)
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb", buffering=0) as file:
            text = file.read(4096)
    except OSError:  # as in `quick`
        return None
    kib = {}
    for line in text.splitlines()[1:]:
        name, _, rest = line.partition(b":")
        kib[name] = int(rest.split()[0])
    if b"Rss" not in kib:
        return None
    return MemoryReading(
        rss_bytes=kib[b"Rss"] * 1024,
        anon_bytes=kib.get(b"Anonymous", 0) * 1024,
        uss_bytes=(kib.get(b"Private_Clean", 0) + kib.get(b"Private_Dirty", 0)) * 1024,
        pss_bytes=kib.get(b"Pss", 0) * 1024,
    )


def held(pid: int) -> int | None:
    """
    Read what *pid* holds that is not in a file: anonymous and shared memory, swapped out or not.

    Of a forked child that starts at what its parent holds, and then grows by what the child
    adds: a page that it only rewrites was counted before. None when it is gone.
    Costs 0.03 ms. Source: proc(5), /proc/pid/status, Linux 4.5 and later.
    """
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            lines = file.read(8192).splitlines()
    except OSError:
        reading = None if HAS_PROC else _portable(pid)
        return reading.rss_bytes if reading else None
    found = {name: rest for name, _, rest in (line.partition(b":") for line in lines)}
    if b"RssAnon" not in found:  # a zombie
        return None
    return sum(
        int(found[name].split()[0]) * 1024
        for name in (b"RssAnon", b"RssShmem", b"VmSwap", b"HugetlbPages")
        if name in found
    )


def private(pid: int) -> int | None:
    """
    Read what *pid* alone holds and has written: without what it shares with its relatives.

    Or its share of shared memory, where that is more. Slower than `held`: see `thorough`.
    """
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb", buffering=0) as file:
            lines = file.read(4096).splitlines()[1:]
    except OSError:
        return None
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(b":") for line in lines)}
    written = kib.get(b"Private_Dirty", 0) + kib.get(b"Private_Hugetlb", 0) + kib.get(b"SwapPss", 0)
    return max(written, kib.get(b"Pss_Shmem", 0)) * 1024


def data_bytes() -> int | None:
    """
    Read what counts against RLIMIT_DATA of this process: private writable memory, touched or not.

    Source: proc(5), /proc/pid/statm, field data; it has the stack in addition.
    """
    if not HAS_PROC:
        return None
    with open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read(256).split()[5]) * PAGE_BYTES


def virtual_bytes() -> int | None:
    """Read the size of this process's address space: reserved, not held."""
    if not HAS_PROC:
        return None
    with open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read(256).split()[0]) * PAGE_BYTES


def reset_peak() -> bool:
    """
    Start the high-water mark of this process anew; False where the kernel has no way.

    Without it a forked child's peak starts at its parent's resident size.
    Source: proc(5), /proc/pid/clear_refs, value 5.
    """
    try:
        with open("/proc/self/clear_refs", "wb", buffering=0) as file:
            file.write(b"5")
    except OSError:
        return False
    return True


def peak_bytes(usage: resource.struct_rusage) -> int:
    """Return the peak resident set in *usage*, in bytes (KiB on Linux, bytes on macOS)."""
    return usage.ru_maxrss * (1024 if HAS_PROC else 1)


def peak_since_exec_bytes(usage: resource.struct_rusage) -> int:
    """
    Return the peak resident set of this process since it was executed, in bytes.

    *usage* has that of before, too, which is its parent's. Source: proc(5), /proc/pid/status, VmHWM.
    """
    try:
        with open("/proc/self/status", "rb", buffering=0) as file:
            return int(file.read(8192).partition(b"VmHWM:")[2].split(maxsplit=1)[0]) * 1024
    except (OSError, IndexError):
        return peak_bytes(usage)


def _portable(pid: int | str) -> MemoryReading | None:
    import psutil

    try:
        info = psutil.Process(None if pid == "self" else int(pid)).memory_info()
    except psutil.Error:
        return None
    return MemoryReading(rss_bytes=info.rss)
