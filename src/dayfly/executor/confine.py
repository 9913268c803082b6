"""
Child side: the limits of one call, set when it begins and lifted when it ends.

What the parent does by itself (hard time limit, memory, CPU) is in watch.py.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # see tidy.py: the enums of `signal` cost 0.2 ms a fork
import contextlib
import errno
import os
import resource
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from dayfly.executor import memory
from dayfly.executor.child_codes import SOFT_SIGNAL
from dayfly.executor.errors import SoftTimeLimitExceeded
from dayfly.executor.outcome import Cause

_TOLD = "The soft time limit of this call has passed."


class Confinement:
    """The limits that a child sets for itself."""

    def __init__(self) -> None:
        #: Whether this child should serve no other call: a limit could not be lifted, or a call was
        #: interrupted, which may have been anywhere: between taking a lock and the `with`.
        self.is_worn = False
        self._soft_ns: int | None = None
        self._has_cancelled = False

    def listen(self) -> None:
        """
        Handle the signal that tells of the soft time limit.

        For the whole life of the child: it may come late, when the call is over, and its default
        action is death.
        """
        _signal.signal(SOFT_SIGNAL, self._on_signal)

    def hold(self, order: dict[str, Any], call: Callable[[], bytes]) -> bytes:
        """
        Call *call*, held to the limits in *order*.

        No context manager made of a generator: contextlib sets `__traceback__` of what is raised in it,
        and an exception that lets nobody set anything (a frozen dataclass) would give way to its refusal.
        """
        with contextlib.ExitStack() as undo:
            if order["nice"]:
                self._be_nice(order["nice"], undo)
            if order["data_bytes"] is not None:
                self._limit_data(order["data_bytes"], undo)
            undo.callback(self._disarm)
            self._soft_ns = order["soft_ns"]
            try:
                self._interrupt_if_late()
                return call()
            except BaseException as error:
                if self._has_cancelled and type(error).__name__ == "CancelledError":
                    raise SoftTimeLimitExceeded(_TOLD) from error
                raise

    def _interrupt_if_late(self) -> None:
        """Raise if the signal came before the call began: on a busy machine a child may start late."""
        if self._soft_ns is not None and time.monotonic_ns() >= self._soft_ns:
            self._soft_ns = None
            self.is_worn = True
            raise SoftTimeLimitExceeded(_TOLD)

    def _disarm(self) -> None:
        self._soft_ns = None
        self._has_cancelled = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # One that was sent for an earlier call comes before the time of this one.
        if self._soft_ns is None or time.monotonic_ns() < self._soft_ns:
            return
        self._soft_ns = None
        self.is_worn = True
        loop = _loop_in_its_own_code(frame)
        if loop is None:
            raise SoftTimeLimitExceeded(_TOLD)
        # Raised there, the exception would be logged and lost, and a wake-up with it.
        self._has_cancelled = True
        loop.call_soon_threadsafe(_cancel_all, loop)

    def _limit_data(self, more_bytes: int, undo: contextlib.ExitStack) -> None:
        """
        Let this process ask for *more_bytes* beyond what it has.

        Never an absolute value: one below what was inherited would refuse everything.
        Source: setrlimit(2), RLIMIT_DATA, Linux 4.7 and later for mmap.
        """
        now = memory.data_bytes()
        if now is None:
            return
        before = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = now + more_bytes
        for bound in (soft, hard):
            if bound != resource.RLIM_INFINITY:
                wanted = min(wanted, bound)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
        undo.callback(self._lift_data, before)

    def _lift_data(self, before: tuple[int, int]) -> None:
        try:
            resource.setrlimit(resource.RLIMIT_DATA, before)
        except (OSError, ValueError):
            self.is_worn = True  # the call lowered the hard limit

    def _be_nice(self, more: int, undo: contextlib.ExitStack) -> None:
        before = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, 0, min(before + more, 19))
        undo.callback(self._be_as_before, before)

    def _be_as_before(self, niceness: int) -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, niceness)
        except PermissionError:
            self.is_worn = True  # becoming less nice takes a right that few have: setpriority(2)


def _loop_in_its_own_code(frame: FrameType | None) -> Any:
    """Return the asyncio loop of this thread if *frame* is of the loop itself, and not of a task."""
    asyncio: Any = sys.modules.get("asyncio")
    loop = asyncio._get_running_loop() if asyncio is not None else None
    if loop is None:
        return None
    module = frame.f_globals.get("__name__", "") if frame is not None else ""
    is_in_task = asyncio.current_task(loop) is not None
    return None if is_in_task and module.partition(".")[0] != "asyncio" else loop


def _cancel_all(loop: Any) -> None:
    for task in sys.modules["asyncio"].all_tasks(loop):
        task.cancel(_TOLD)


def cause_of(error: BaseException, order: dict[str, Any]) -> Cause | None:
    """Tell whether a limit of the call is what *error* comes from."""
    if isinstance(error, SoftTimeLimitExceeded):
        return Cause.SOFT_LIMIT
    is_refusal = isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    )
    return Cause.MEMORY_ERROR if is_refusal and order["data_bytes"] is not None else None
