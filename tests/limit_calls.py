"""What children do that have limits. No Django in here."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import mmap
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from dayfly.executor import SoftTimeLimitExceeded
from tests import calls
from tests.calls import MIB

_kept: list[object] = []


# Memory


def touch(block: mmap.mmap) -> None:
    for start in range(0, len(block), mmap.PAGESIZE):
        block[start] = 1


def leaks_slowly() -> None:
    for _ in range(1_000):  # then enough is enough, should nobody act
        _kept.append(bytearray(2 * MIB))
        time.sleep(0.01)


def holds_private(megabytes: int) -> None:
    _kept.append(b"x" * (megabytes * MIB))
    calls.waits()


def holds_shared(megabytes: int) -> None:
    block = mmap.mmap(-1, megabytes * MIB, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    touch(block)
    calls.waits()


def takes_gigabytes_at_once(gigabytes: int) -> int:
    return len(b"x" * (gigabytes << 30))


def maps_gigabytes_at_once(gigabytes: int) -> None:
    mmap.mmap(-1, gigabytes << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def takes_gigabytes_with_numpy(gigabytes: int) -> int:
    import numpy as np

    return int(np.ones(gigabytes << 30, dtype=np.uint8).size)


def leaks_with_numpy() -> None:
    import numpy as np

    for _ in range(1_000):
        _kept.append(np.ones(2 * MIB, dtype=np.uint8))
        time.sleep(0.01)


def handles_memory_error(gigabytes: int) -> str:
    try:
        return str(takes_gigabytes_at_once(gigabytes))
    except MemoryError:
        return "handled"


def keeps(megabytes: int) -> None:
    """Hold memory for as long as the child lives, and never what its parent had freed in its heap."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    block = mmap.mmap(-1, megabytes * MIB, flags=flags)
    touch(block)
    _kept.append(block)


def holds_and_says_so(megabytes: int) -> int:
    print(f"{megabytes} MiB", end="")
    return calls.holds(megabytes)


def takes_megabytes(megabytes: int) -> int:
    return len(b"x" * (megabytes * MIB))


def aborts_for_lack_of_memory() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    if not libc.malloc(10 << 30):
        libc.abort()


def starts_one_that_holds(megabytes: int, mark: str, new_session: bool = False) -> None:
    code = (
        "import os, signal, sys\n"
        f"kept = b'x' * {megabytes * MIB}\n"
        "open(sys.argv[1] + '.new', 'w').write(str(os.getpid()))\n"
        "os.rename(sys.argv[1] + '.new', sys.argv[1])\n"
        "while True: signal.pause()\n"
    )
    subprocess.Popen([sys.executable, "-S", "-c", code, mark], start_new_session=new_session)
    calls.waits()


def shares_with_copies(megabytes: int, copies: int, until: str) -> str:
    """Hold memory, and fork copies that see it, too."""
    block = b"x" * (megabytes * MIB)
    pids = []
    for _ in range(copies):
        pid = os.fork()
        if pid == 0:
            calls.waits_for(until)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    return str(len(block) // MIB)


# Time


def computes_in_c() -> None:
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2_000_000_000)


def matches_in_c() -> None:
    re.match(r"(a|aa)+$", "a" * 200 + "b")


def block_all_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def sleeps_with_blocked_signals(mark: str) -> None:
    block_all_signals()
    calls.leave_mark(mark)
    time.sleep(600)


def cleans_up_after_soft_limit() -> str:
    try:
        calls.waits()
    except SoftTimeLimitExceeded as error:
        return f"cleaned up: {error}"
    return "never told"


def swallows_exceptions(path: str) -> None:
    while True:
        try:
            time.sleep(600)
        except Exception:
            calls.appends(path, "swallowed")


def waits_in_asyncio() -> None:
    async def main() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            print("cleaned up")

    asyncio.run(main())


def spins_in_asyncio() -> None:
    async def main() -> None:
        try:
            while True:
                await asyncio.sleep(0)
        finally:
            print("cleaned up")

    asyncio.run(main())


def blocks_asyncio() -> None:
    async def main() -> None:
        try:
            time.sleep(600)
        finally:
            print("cleaned up")

    asyncio.run(main())


def uses_its_own_alarm() -> str:
    rung: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        while True:
            time.sleep(600)
    except SoftTimeLimitExceeded:
        return f"rung {len(rung)} times, then told"


def gives_the_soft_signal_its_default_back() -> None:
    from dayfly.executor.child_codes import SOFT_SIGNAL

    signal.signal(SOFT_SIGNAL, signal.SIG_DFL)
    calls.waits()


def starts_one_in_a_session_of_its_own(mark: str) -> None:
    """Start a process that ignores TERM and is in no group of ours, and wait."""
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open(sys.argv[1] + '.new', 'w').write(str(os.getpid()))\n"
        "os.rename(sys.argv[1] + '.new', sys.argv[1])\n"
        "while True: signal.pause()\n"
    )
    subprocess.Popen([sys.executable, "-S", "-c", code, mark], start_new_session=True)
    calls.waits()


# CPU


def burns_in_a_process_of_its_own() -> None:
    subprocess.run([sys.executable, "-S", "-c", "while True: pass"], check=False)


def burns_in_many_short_processes() -> None:
    code = "import time\nwhile time.process_time() < 0.1: pass"
    while True:
        subprocess.run([sys.executable, "-S", "-c", code], check=False)


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


# What a call may do to its own limits


def data_limit() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_DATA)


def lowers_its_hard_limit() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, soft))


def become_nobody() -> None:
    """For Terms.after_fork: a child without the rights of root."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def holds_and_waits_for(megabytes: int, mark: str, until: str) -> str:
    block = b"x" * (megabytes * MIB)
    calls.leave_mark(mark)
    calls.waits_for(until)
    return str(len(block) // MIB)


def prints_and_waits_for(text: str, until: str) -> None:
    print(text, flush=True)
    calls.waits_for(until)
    print("the end")


def prints_a_lot_then_segfaults(megabytes: int) -> None:
    calls.prints_a_lot(megabytes)
    sys.stdout.flush()
    calls.segfaults()


def sends_half_a_report_and_dies(how: str) -> None:
    from dayfly.executor import wire

    whole = wire.encode(wire.REPORT, {"id": "x"}, b"v" * 100)
    os.write(calls.channel_fd(), whole[: len(whole) // 2])
    if how == "exit":
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


def leaves_its_group_to_another(mark: str) -> None:
    """Start a process in the child's group, and leave that."""
    subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"])
    os.setpgid(0, os.getpgid(os.getppid()))
    calls.waits(mark)


def kills_the_template_of_its_call(mark: str) -> tuple[str, int | None]:
    """Run a call in turn, kill its template, then the call; return how that ended."""
    from dayfly.executor import Call, Executor

    with Executor(standby=0, launcher="copy") as executor:
        executor.submit(Call.of(calls.waits, mark))
        while not os.path.exists(mark):
            executor.poll(0.01)
        (child,) = executor.child_pids
        (template,) = set(executor.all_pids) - {child}
        os.kill(template, signal.SIGKILL)
        while template in executor.all_pids:
            executor.poll(0.01)
        os.kill(child, signal.SIGTERM)
        while not (reports := executor.poll()):
            pass
        return reports[0].outcome, reports[0].signal


def leaves_an_orphan() -> None:
    """Start a process that starts another and ends: the other is nobody's child here."""
    code = "import os; os.fork() and os._exit(0); os.getppid()"
    subprocess.run([sys.executable, "-S", "-E", "-c", code], check=True)


def exits_with_a_daemon(mark: str) -> int:
    """Leave a process behind that goes on after the call."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "import signal; signal.pause()"],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    process.returncode = 0
    Path(mark).write_text(str(process.pid))
    return process.pid


# Memory, where only a kernel's cgroup sees it or is fast enough


def takes_for_ever() -> None:
    """Take all the memory that there is, in pieces that no kernel refuses at once."""
    while True:
        _kept.append(b"x" * (50 * MIB))


def leaves_a_daemon_that_holds(megabytes: int, mark: str) -> None:
    """Fork twice, with a session of its own between: a process that is no relative's any more."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        calls.leave_mark(mark)
        holds_private(megabytes)
    os.waitpid(child, 0)
    calls.waits()


def holds_with_numpy(megabytes: int) -> None:
    import numpy as np

    _kept.append(np.ones(megabytes * MIB, dtype=np.uint8))
    calls.waits()


def holds_in_a_family(megabytes: int, size: int) -> None:
    """Start *size* processes, then hold memory ourselves: all die at once, some later than we."""
    for _ in range(size):
        if os.fork() == 0:
            _kept.append(b"x" * MIB)
            calls.waits()
    holds_private(megabytes)
