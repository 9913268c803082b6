"""
Child side: leave by os._exit, and lose nothing that was only buffered.

Full finalisation of the interpreter costs 48-215 ms after a fork of a Django process,
os._exit 1 ms: so what finalisation would have flushed is flushed here, by name.
The parent bounds the time (Terms.leave_seconds).
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import NoReturn


def leave(before_exit: Iterable[Callable[[], None]], exit_code: int = 0) -> NoReturn:
    """Flush what is buffered, run *before_exit*, and end this process."""
    try:
        for hook in (*before_exit, _flush_logging, _save_coverage, _flush_sentry):
            try:
                hook()
            except BaseException:  # noqa: BLE001 - a broken hook must not keep the others from running
                traceback.print_exc()
        flush_streams()
    finally:
        os._exit(exit_code)


def flush_streams() -> None:
    """Write out what print() left in buffers."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # noqa: BLE001 - closed, or replaced by the task with anything at all
            pass


def _flush_logging() -> None:
    # As logging.shutdown does, without closing: handlers may be shared with the parent.
    for reference in list(logging._handlerList):  # type: ignore[attr-defined]
        handler = reference()
        if handler is not None and getattr(handler, "flushOnClose", True):
            handler.flush()


def _save_coverage() -> None:
    module = sys.modules.get("coverage")
    current = module.Coverage.current() if module is not None else None
    if current is not None:
        current.stop()
        current.save()


def _flush_sentry() -> None:
    module = sys.modules.get("sentry_sdk")
    if module is not None:
        module.flush(timeout=2.0)
