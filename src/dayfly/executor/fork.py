"""
Crosses the fork: the only module that calls os.fork.

A child never returns from here: whatever happens in it, it ends in os._exit.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # see tidy.py: the enums of `signal` cost 0.2 ms a fork
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from dayfly.executor.child_codes import EXIT_START_FAILED

_ALL_SIGNALS = tuple(int(number) for number in signal.valid_signals())


def fork(life: Callable[[], NoReturn]) -> int:
    """
    Fork a child that lives *life*; return its pid in the parent.

    Signals are blocked from before the fork until *life* unblocks them, so that no
    handler of the parent ever runs in the child. Buffered output is flushed before, so
    that it is not written twice.

    Raises:
        OSError: no process or no memory is left (EAGAIN, ENOMEM).
    """
    _flush()
    blocked_before = _signal.pthread_sigmask(_signal.SIG_BLOCK, _ALL_SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _live(life)
        return pid
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, blocked_before)


def _live(life: Callable[[], NoReturn]) -> NoReturn:
    try:
        life()
    except BaseException:  # noqa: BLE001 - nothing may unwind into the parent's frames
        traceback.print_exc()
        _flush()
    finally:
        os._exit(EXIT_START_FAILED)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # closed, or none: then there is nothing to write twice
