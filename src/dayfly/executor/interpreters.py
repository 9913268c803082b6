"""Parent side: start a fresh interpreter for a template or a spawned child. Nothing is inherited but what is named."""

from __future__ import annotations

import fcntl
import os
import pickle
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dayfly import __version__
from dayfly.executor.errors import CannotStart
from dayfly.executor.source import FIRST_FD, Source
from dayfly.executor.terms import Terms

_PROGRAM = (
    "import sys; sys.path[:] = {path!r};"
    " from dayfly.executor.fresh import main; main({role!r}, {version!r})"
)


def start(role: str, order: bytes, fds: Sequence[int], environment: dict[str, str]) -> int:
    """
    Execute Python as *role* (see fresh.py), with *order* to read and *fds* to keep; return its pid.

    Raises:
        OSError: the system refuses.
    """
    program = _PROGRAM.format(path=sys.path, role=role, version=__version__)
    order_fd = os.memfd_create("dayfly-order", os.MFD_CLOEXEC)
    high: list[int] = []
    # Out of the way of the numbers that they get in the new process.
    beyond = FIRST_FD + 1 + len(fds)
    try:
        os.write(order_fd, order)
        os.lseek(order_fd, 0, os.SEEK_SET)
        for fd in (order_fd, *fds):
            high.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, beyond))
        return os.posix_spawn(
            sys.executable,
            [sys.executable, *_flags(), "-c", program],
            {**os.environ, **environment},
            file_actions=[
                *((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in _missing_streams()),
                *((os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(high, FIRST_FD)),
                *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable(beyond)),
            ],
            setpgroup=0,
            setsigmask=(),
            setsigdef=_catchable(),
        )
    finally:
        for fd in (order_fd, *high):
            os.close(fd)


def write_order(source: Source, terms: Terms, workdir_known: tuple[int, int] | None) -> bytes:
    """
    Write down what the new process must know.

    Raises:
        CannotStart: a hook of *terms* is no function at module level, or this process is one
            that imports the main program itself.
    """
    return pickle.dumps(
        {
            "source": source,
            # Apart, as its hooks may be functions of the main program, which is imported first.
            "terms": check_hooks(terms),
            "title": terms.title,
            "workdir": (terms.workdir, terms.workdir_wait_seconds, workdir_known),
            "parent_pid": os.getpid(),
            "main": _main_program() if source.main else None,
        },
        pickle.HIGHEST_PROTOCOL,
    )


def check_hooks(terms: Terms) -> bytes:
    """
    Pickle *terms* for another process.

    Raises:
        CannotStart: a hook is no function at module level.
    """
    try:
        # What runs before a fork runs here.
        return pickle.dumps(replace(terms, before_fork=()), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        message = (
            f"A fresh interpreter cannot be given these terms: {error}. "
            "Hooks must be functions at module level; or use the launcher 'fork'."
        )
        raise CannotStart(message) from error


def _main_program() -> dict[str, Any]:
    from multiprocessing import process, spawn

    if getattr(process.current_process(), "_inheriting", False):
        raise CannotStart(
            "The main program starts children while it is imported by one of them: put what it does "
            "under `if __name__ == \"__main__\":`, or use the launcher 'fork'."
        )
    found = spawn.get_preparation_data("dayfly")
    del found["authkey"]  # for queues and managers of multiprocessing, and not to be told
    return found


def _flags() -> list[str]:
    """Repeat how this interpreter was told to treat warnings and bytecode."""
    found = [f"-W{option}" for option in sys.warnoptions]
    found += [
        f"-X{name}" if value is True else f"-X{name}={value}"
        for name, value in sys._xoptions.items()
    ]
    found += ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
    found += ["-B"] if sys.dont_write_bytecode else []
    return found


def _missing_streams() -> list[int]:
    """List the standard streams that would not be inherited, and whose numbers files of the project would get."""
    return [fd for fd in range(FIRST_FD) if not _is_inheritable(fd)]


def _inheritable(first: int) -> list[int]:
    """
    List what would be inherited without being named, from *first* up: a server's listening
    socket, or what this process was started with.
    """
    fds = map(int, os.listdir("/proc/self/fd"))
    return [fd for fd in fds if fd >= first and _is_inheritable(fd)]


def _is_inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False  # not open, that of a listing, or closed by another thread meanwhile


def _catchable() -> list[int]:
    import signal

    return [
        number
        for number in signal.valid_signals()
        if number not in (signal.SIGKILL, signal.SIGSTOP)
    ]
