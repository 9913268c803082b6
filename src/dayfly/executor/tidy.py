"""
Child side: what a child gets rid of before it does anything else.

A fork copies everything: handlers, descriptors, buffers. In this order:
signals and process group, descriptors, standard streams, then what is known to be
unsafe to share. Nothing here may talk on an inherited descriptor.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the wrappers in `signal` make an enum of each of 64 numbers: 0.2 ms a child
import ctypes
import fcntl
import io
import logging
import os
import signal
import socket
import sys
from collections.abc import Collection
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Looked up before the fork: a child should not search libraries.
_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None
_ALL_SIGNALS = tuple(int(number) for number in signal.valid_signals())
#: Python ignores these at start-up and expects them ignored.
_KEPT_IGNORED = frozenset(
    number for name in ("SIGPIPE", "SIGXFSZ") if (number := getattr(signal, name, None))
)


def reset_signals() -> None:
    """Give every signal its default again. They are still blocked: see fork.py."""
    _signal.set_wakeup_fd(-1)
    for number in _ALL_SIGNALS:
        handler = _signal.getsignal(number)
        if handler == _signal.SIG_DFL or handler is None:
            continue
        if number in _KEPT_IGNORED:
            if handler != _signal.SIG_IGN:
                _signal.signal(number, _signal.SIG_IGN)
        elif number == _signal.SIGINT:
            _signal.signal(number, _signal.default_int_handler)
        else:
            _signal.signal(number, _signal.SIG_DFL)


def unblock_signals() -> None:
    """Let signals in, once nothing of the parent's is left to handle them."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def die_with_parent(parent_pid: int) -> None:
    """
    Ask the kernel to kill this child when its parent dies.

    Source: prctl(2), PR_SET_PDEATHSIG. The parent may have died just before, so look again;
    *parent_pid* is what the parent knew before the fork, as an orphan would learn another's.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(0)


def outlive_parent() -> None:
    """Take back `die_with_parent`."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


def adopt_orphans() -> None:
    """Be the one to whom the kernel gives what descendants leave behind. Source: prctl(2), PR_SET_CHILD_SUBREAPER."""
    if _prctl is not None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def own_group() -> None:
    """
    Leave the parent's process group: Ctrl-C is for the parent alone, and a kill reaches what this child starts.

    Not a session of its own: setsid(2) costs 1.4 ms where the kernel groups sessions for
    its scheduler (CONFIG_SCHED_AUTOGROUP).
    """
    os.setpgid(0, 0)


#: As the kernel names it; libffi may be linked into it.
_INTERPRETER = os.path.realpath(sys.executable) if sys.executable else ""

#: Files and sockets of log handlers that are the parent's. Never emptied: no finaliser shall run.
_inherited: list[Any] = []

_STREAMS = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


class StandardStreams:
    """
    What a child's sys.stdin, stdout and stderr will be. Made before the fork, used after it.

    Line-buffered, so that what was printed before a crash is known.
    """

    def __init__(self) -> None:
        self._ready = [_text(fd, mode) if _is_open(fd) else None for fd, _, mode in _STREAMS]

    def install(self, output_fd: int | None) -> None:
        """Point stdin at /dev/null, stdout and stderr at *output_fd* (None: there, too), for C code as well."""
        null = os.open(os.devnull, os.O_RDWR)
        output = null if output_fd is None else output_fd
        for fd, leads_to in enumerate((null, output, output)):
            os.dup2(leads_to, fd)
            os.set_inheritable(fd, True)  # dup2 onto itself, where the number was free, would not
        if null > 2:
            os.close(null)
        for (fd, name, mode), ready in zip(_STREAMS, self._ready, strict=True):
            stream = ready or _text(fd, mode)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)  # what others go back to after replacing sys.stdout


def drop_descriptors(keep: Collection[int]) -> None:
    """
    Point every other descriptor at /dev/null, but those of the program's own code.

    Not closed: an inherited object (a driver's connection, an epoll) still knows its
    number, and must neither reach the parent's peer nor a file that got the number since.
    """
    open_fds = [int(name) for name in os.listdir("/proc/self/fd")]
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in open_fds:
        # The listing itself had a descriptor, which is closed by now: mostly `null` got its number.
        if fd > 2 and fd != null and fd not in keep and not _is_of_code(fd):
            try:
                os.dup2(null, fd, inheritable=False)
            except OSError:
                pass
    os.close(null)


def _is_of_code(fd: int) -> bool:
    """
    Tell whether *fd* only reads a shared library or the interpreter.

    libffi, from 3.4.7, keeps one of the file that it was linked into, and maps callbacks from there:
    without it, ctypes and cffi can make no more than some hundred in a child, then raise MemoryError.
    """
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if ".so" not in os.path.basename(path) and path != _INTERPRETER:
            return False
        return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    except OSError:
        return False


def point_at_null(fd: int) -> None:
    """Point one descriptor at /dev/null: a socket that only its owner may use."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, fd, inheritable=False)
    os.close(null)


def reopen_logs() -> None:
    """
    Let log handlers open their file or socket anew, as what they hold leads to /dev/null now.

    Each does so by itself at its next record, when it finds none. A file is appended to:
    the parent writes to it, too.
    """
    for reference in list(logging._handlerList):  # type: ignore[attr-defined]
        handler = reference()
        if isinstance(handler, logging.FileHandler) and handler.stream is not None:
            _inherited.append(handler.stream)
            handler.stream = None
            handler.mode = "a"
            continue
        # SocketHandler and its kin say `sock`, SysLogHandler says `socket`.
        for name in ("sock", "socket"):
            if type(getattr(handler, name, None)) is socket.socket:
                _inherited.append(getattr(handler, name))
                setattr(handler, name, None)


def reseed_numpy() -> None:
    """Give numpy's legacy generator a state of its own; CPython reseeds `random` itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def volunteer_for_oom_killer(score_adj: int | None) -> None:
    """Let the kernel kill this child rather than its parent. Source: proc(5), oom_score_adj."""
    if score_adj is None:
        return
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(b"%d" % score_adj)
    except OSError:
        pass  # not Linux, or lowered for us by someone with more rights


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _text(fd: int, mode: str) -> io.TextIOWrapper:
    raw = io.FileIO(fd, mode, closefd=False)
    buffered = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffered, encoding="utf-8", errors="backslashreplace", line_buffering=True
    )
