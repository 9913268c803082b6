"""
Parent side: being asked to stop. The first signal asks, the second hurries.

Handlers do nothing but count; a descriptor wakes the loop. A worker that runs a task itself does
not come to its loop: there the second signal interrupts the task.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
#: What comes from a terminal. Where it is ignored it is left so: by `nohup`, for a worker that is to
#: outlive its terminal, and by a shell, for what a script starts in the background.
OF_TERMINALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


class StopRequests:
    """Counts requests to stop, by signal or by `request`."""

    def __init__(self) -> None:
        self.count = 0
        self._first_at: float | None = None
        #: Whether a task runs in this process now, for the second signal to interrupt.
        self.runs_task: Callable[[], bool] = lambda: False
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._previous: dict[int, Any] = {}
        self._previous_wakeup_fd: int | None = None

    def listen(self) -> None:
        """Install the signal handlers. Only from the main thread, as Python demands."""
        self._previous_wakeup_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in SIGNALS:
            if number in OF_TERMINALS and signal.getsignal(number) is signal.SIG_IGN:
                continue
            self._previous[number] = signal.signal(number, self._on_signal)

    def request(self) -> None:
        """Ask to stop, as a signal does."""
        self.count += 1
        if self._first_at is None:
            self._first_at = time.monotonic()

    def seconds_left(self, grace_seconds: float | None) -> float | None:
        """Return how long tasks may still run; 0 when the first request asks no more; None: no end is set."""
        if self._first_at is None or grace_seconds is None:
            return None
        return max(self._first_at + grace_seconds - time.monotonic(), 0.0)

    def fileno(self) -> int:
        """Return a descriptor that is readable once a signal came."""
        return self._read_fd

    def drain(self) -> None:
        """Empty the descriptor."""
        try:
            while os.read(self._read_fd, 512):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Put back the handlers that were there before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._previous_wakeup_fd is not None:
            signal.set_wakeup_fd(self._previous_wakeup_fd)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.request()
        if self.count == 2 and self.runs_task():
            raise KeyboardInterrupt
