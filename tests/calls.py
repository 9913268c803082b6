"""What the children of the tests do. No Django in here: the executor's tests run without it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import logging
import mmap
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dayfly.executor import when_recorded

MIB = 1 << 20


# Endings


def replaces_stdout_by_one_that_exits() -> None:
    class Exits:
        def flush(self) -> None:
            raise SystemExit

    sys.stdout = Exits()  # type: ignore[assignment]


def returns(value: Any = None) -> Any:
    return value


def raises(message: str = "no luck") -> None:
    raise ValueError(message)


def raises_with_cause() -> None:
    try:
        raise KeyError("the cause")
    except KeyError as error:
        raise RuntimeError("the effect") from error


class Unspeakable(Exception):
    """An exception that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


def raises_unspeakable() -> None:
    raise Unspeakable


@dataclass(frozen=True)
class Sealed(Exception):
    """Lets nobody set an attribute, not even those that each exception has."""


def raises_sealed() -> None:
    raise Sealed


def sys_exits(code: object = 3) -> None:
    sys.exit(code)  # type: ignore[arg-type]


def os_exits(code: int = 7) -> None:
    os._exit(code)


def segfaults() -> None:
    with contextlib.suppress(ImportError):
        import faulthandler

        faulthandler.disable()
    ctypes.string_at(0)


def kills_itself(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)
    signal.pause()


def waits(mark: str | None = None) -> None:
    """Wait until a signal ends it; make the file *mark* when it is about to."""
    if mark is not None:
        leave_mark(mark)
    while True:
        signal.pause()


def leave_mark(path: str) -> None:
    """Make the file *path*, with our pid in it, in one step."""
    Path(f"{path}.new").write_text(str(os.getpid()))
    os.rename(f"{path}.new", path)


def waits_for(path: str) -> str:
    """Wait until *path* exists."""
    until = time.monotonic() + 30
    while not os.path.exists(path):
        if time.monotonic() > until:
            raise TimeoutError(path)
        time.sleep(0.002)
    return path


def ends_after(path: str, value: Any, *, exit_code: int | None = None, number: int = 0) -> Any:
    """Wait for the file *path*; then return *value*, exit, or be killed."""
    waits_for(path)
    if exit_code is not None:
        os._exit(exit_code)
    if number:
        os.kill(os.getpid(), number)
    return value


def marks_and_waits_for(mark: str, path: str) -> int:
    leave_mark(mark)
    waits_for(path)
    return os.getpid()


def ignores_sigterm(mark: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    waits(mark)


def finishes_on_sigterm(mark: str) -> str:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    leave_mark(mark)
    while not heard:  # no pause(): the signal may have come just before it
        time.sleep(0.005)
    return "finished in time"


def registers_and_finishes_on_sigterm(mark: str, seen: str) -> str:
    when_recorded(lambda: appends(seen, "recorded"))
    return finishes_on_sigterm(mark)


# Descriptors


def closes_all_descriptors() -> str:
    print("said before", end="")
    os.closerange(0, 4096)
    return "cannot be sent"


#: What a project opened while it was loaded, for good.
_log: list[int] = []


def opens_a_log() -> None:
    path = os.environ["DAYFLY_TEST_LOG"]
    _log.append(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND))


def writes_to_its_log(text: str) -> None:
    os.write(_log[0], text.encode())


def replaces_all_descriptors(directory: str) -> str:
    """Close everything, then open files that get the same numbers."""
    print("must not land in a file", end="")
    print("nor this", end="", file=sys.stderr)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    os.closerange(0, 4096)
    for number in range(highest + 1):
        os.open(f"{directory}/{number}", os.O_CREAT | os.O_RDWR)
    return "cannot be sent"


def lists_descriptors() -> dict[int, str]:
    """Return where they lead, but the one that libffi has where it is new."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            target = os.readlink(f"/proc/self/fd/{name}")
            if "libffi" not in target:
                found[int(name)] = target
    return found


def makes_callbacks(count: int) -> int:
    kind = ctypes.CFUNCTYPE(ctypes.c_int)
    kept = [kind(lambda: 7) for _ in range(count)]
    return sum(each() for each in kept)


def hogs_descriptors() -> None:
    while True:
        os.open(os.devnull, os.O_RDONLY)


def channel_fd() -> int:
    """Find the socket to the parent: the only one that a child has."""
    for number, target in lists_descriptors().items():
        if target.startswith("socket:"):
            return number
    raise AssertionError("no socket")


def sends_garbage(data: bytes = b"garbage\n" * 100) -> str:
    os.write(channel_fd(), data)
    return "too late"


def sends_garbage_and_waits(data: bytes) -> None:
    os.write(channel_fd(), data)
    waits()


def sends_half_a_frame_and_dies() -> None:
    os.write(channel_fd(), struct.pack("!4sBII", b"dfly", 3, 500, 10) + b'{"id": "')
    kills_itself()


def floods_the_channel() -> None:
    fd = channel_fd()
    data = b"\0" * (1 << 16)
    os.write(fd, struct.pack("!4sBII", b"dfly", 3, 0, 1 << 20))
    while True:
        os.write(fd, data)


def closes_the_channel_and_stays() -> None:
    os.close(channel_fd())
    waits()


def closes_the_channel_later(mark: str) -> str:
    """Return, and close the socket when *mark* appears, from a thread."""
    fd = channel_fd()

    def close() -> None:
        waits_for(mark)
        # shutdown, because the main thread's recv keeps a closed socket open.
        with socket.socket(fileno=os.dup(fd)) as copy:
            copy.shutdown(socket.SHUT_WR)

    threading.Thread(target=close, daemon=True).start()
    return "kept"


def speaks_later(mark: str) -> str:
    """Return, and write to the socket when *mark* appears, from a thread."""
    fd = channel_fd()

    def speak() -> None:
        waits_for(mark)
        os.write(fd, b"out of turn")

    threading.Thread(target=speak, daemon=True).start()
    return "kept"


# Processes


def forks_a_copy_that_returns() -> str:
    pid = os.fork()
    if pid == 0:
        return "the copy"
    os.waitpid(pid, 0)
    return "the original"


def forks_a_copy_that_raises() -> str:
    pid = os.fork()
    if pid == 0:
        raise ValueError("the copy")
    os.waitpid(pid, 0)
    return "the original"


def forks_a_copy_that_returns_late(path: str) -> int:
    pid = os.fork()
    if pid == 0:
        waits_for(path)
    return pid


def leaves_grandchild(mark: str) -> None:
    """Start a process that ignores TERM, and wait."""
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "with open(sys.argv[1] + '.tmp', 'w') as f: f.write(str(os.getpid()))\n"
        "os.rename(sys.argv[1] + '.tmp', sys.argv[1])\n"
        "while True: signal.pause()\n"
    )
    subprocess.Popen([sys.executable, "-S", "-c", code, mark])
    waits()


def leaves_a_shouting_grandchild() -> int:
    """Return while a process of ours goes on writing to the output for ever."""
    process = subprocess.Popen(["yes", "noise"])
    process.returncode = 0  # no ResourceWarning: it is meant to outlive us
    return process.pid


# Output


def prints(text: str) -> None:
    print(text, end="")


def prints_in_every_way() -> None:
    print("print", end="|", flush=True)
    print("stderr", end="|", file=sys.stderr, flush=True)
    os.write(1, b"os.write|")
    ctypes.CDLL(None).dprintf(1, b"C|")
    subprocess.run([sys.executable, "-S", "-c", "print('subprocess', end='|')"], check=True)
    os.write(1, b"\xff\xfe|")
    print("last", end="")


def prints_a_lot(megabytes: int) -> None:
    os.write(1, b"HEAD")
    block = b"x" * MIB
    for _ in range(megabytes):
        with memoryview(block) as rest:
            done = 0
            while done < len(rest):
                done += os.write(1, rest[done:])
    print("TAIL", end="")


def prints_then_dies() -> None:
    print("last words")
    kills_itself()


def breaks_stdout() -> str:
    class Broken:
        def flush(self) -> None:
            raise RuntimeError("no flush")

        def write(self, text: str) -> int:
            return len(text)

    sys.stdout = Broken()
    return "still here"


def logs(name: str, text: str) -> None:
    logging.getLogger(name).error(text)


def logs_into_a_buffer(path: str) -> None:
    """Log through a handler that only writes when it is flushed."""
    from logging.handlers import MemoryHandler

    target = logging.FileHandler(path)
    logger = logging.getLogger("tests.buffered")
    logger.addHandler(MemoryHandler(1000, target=target))
    logger.warning("written at last")


# Values


def returns_lambda() -> Any:
    return lambda: None


def returns_bytes(count: int) -> bytes:
    return bytes(count)


def length_of(data: bytes) -> int:
    return len(data)


def raw_upper(payload: bytes) -> bytes:
    return payload.upper()


def raw_text(payload: bytes) -> Any:
    return payload.decode()


def raw_nothing(payload: bytes) -> Any:
    return None


class BrokenArgument:
    """Pickles well, and cannot be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return raises, ("cannot be unpickled",)


class Adder:
    """An object that can be called."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"secret {self.number}"

    def __call__(self, other: int = 0) -> int:
        return self.number + other


# Memory and CPU


def holds(megabytes: int) -> int:
    """Hold memory that is really there, then give it back to the system."""
    with mmap.mmap(-1, megabytes * MIB) as block:
        for start in range(0, len(block), mmap.PAGESIZE):
            block[start] = 1
    return megabytes


def holds_and_waits(megabytes: int, mark: str) -> None:
    with mmap.mmap(-1, megabytes * MIB) as block:
        for start in range(0, len(block), mmap.PAGESIZE):
            block[start] = 1
        waits(mark)


def burns(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def imports(name: str) -> str | None:
    import importlib

    return getattr(importlib.import_module(name), "VERSION", None)


# What a child is


def handler_of(number: int) -> str:
    return str(signal.getsignal(number))


def pid() -> int:
    return os.getpid()


def about_signals() -> dict[str, Any]:
    """Tell which handlers and which mask a child starts with."""
    with open("/proc/self/status") as file:
        status = {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
    wakeup_fd = signal.set_wakeup_fd(-1)
    return {
        "usr1": signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL,
        "term": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
        "chld": signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL,
        "int": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "wakeup_fd": wakeup_fd,
        "group": os.getpgrp(),
        "blocked": int(status["SigBlk"], 16),
    }


def about_place() -> dict[str, Any]:
    """Tell where a child stands: group, directory, standard input."""
    return {
        "pid": os.getpid(),
        "group": os.getpgid(0),
        "cwd": os.getcwd(),
        "pwd": os.environ.get("PWD"),
        "stdin": os.readlink("/proc/self/fd/0"),
        "stdin_text": sys.stdin.read(),
    }


def proc_file(name: str) -> str:
    return Path("/proc/self", name).read_text()


def proc_cmdline() -> str:
    return Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def gc_state() -> tuple[bool, int]:
    return gc.isenabled(), gc.get_freeze_count()


def death_signal() -> int:
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)  # PR_GET_PDEATHSIG
    return number.value


def random_number() -> float:
    return random.random()


def numpy_random_number() -> float:
    import numpy.random

    return float(numpy.random.random())


def modules_loaded(prefix: str) -> list[str]:
    return [name for name in sys.modules if name.split(".")[0] == prefix]


def is_inheritable(fd: int) -> bool:
    return not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def changes_directory(path: str) -> str:
    os.chdir(path)
    return os.getcwd()


# After the report


def appends(path: str, line: str) -> None:
    with open(path, "a") as file:
        file.write(f"{line}\n")


def registers(path: str, *lines: str, value: Any = None) -> Any:
    """Ask for *lines* to be written to *path* once the report is recorded."""
    for line in lines:
        when_recorded(lambda line=line: appends(path, line))  # type: ignore[misc]
    return value


def registers_one_that_raises(path: str) -> None:
    when_recorded(lambda: raises("broken callback"))
    when_recorded(lambda: appends(path, "after it"))


def registers_then_raises(path: str) -> None:
    when_recorded(lambda: appends(path, "after the failure"))
    raises()


#: What a fork would copy, and a fresh interpreter does not know.
MARK: list[str] = []


def mark() -> list[str]:
    return MARK


def about_interpreter() -> dict[str, Any]:
    return {
        "colour": os.environ.get("DAYFLY_TEST_COLOUR"),
        "warnoptions": sys.warnoptions,
        "path": sys.path,
    }


# In the host's own process


def interrupts_itself(seen: str | None = None) -> None:
    """Do what Ctrl-C does, in the midst of a call."""
    if seen is not None:
        when_recorded(lambda: appends(seen, "recorded"))
    signal.raise_signal(signal.SIGINT)
    raise AssertionError("nobody listened")


def stops_in_the_debugger(value: int) -> int:
    breakpoint()
    return value


# Templates that die in between


def template_that_dies_after_its_first_fork() -> None:
    """Called in a template, which then is killed before it can say what it has forked."""
    _answer_by(lambda pid: None)


def template_that_dies_with_the_newborn() -> None:
    """The same; and somebody kills the child as it is born."""
    _answer_by(_kill)


def template_that_dies_with_the_child() -> None:
    """The same; and somebody kills the child when it has a group of its own."""
    _answer_by(lambda pid: _kill(pid, in_own_group=True))


def template_that_hangs_after_its_first_fork() -> None:
    """Called in a template, which then never answers."""
    _answer_by(lambda pid: os.kill(os.getpid(), signal.SIGSTOP))


def _answer_by(deed: Any) -> None:
    from dayfly.executor import template

    say = template.say

    def say_once(control: Any, answer: Any) -> None:
        # Only the first template does so, as the tests want another one to take over.
        if "pid" in answer and _is_first(os.environ["DAYFLY_TEST_ONCE"]):
            deed(answer["pid"])
            os.kill(os.getpid(), signal.SIGKILL)
        say(control, answer)

    template.say = say_once


def _kill(pid: int, *, in_own_group: bool = False) -> None:
    while in_own_group and os.getpgid(pid) != pid:
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # dead, and left as a zombie


def _is_first(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


LEAKED_AT_FORKS: list[bytes] = []


def template_that_leaks_at_each_fork() -> None:
    """Called in a template, which then holds 20 MB more after each fork, as a library may."""
    os.register_at_fork(after_in_parent=lambda: LEAKED_AT_FORKS.append(b"x" * 20_000_000))
