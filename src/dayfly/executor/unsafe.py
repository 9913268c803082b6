"""Child side: look for what a fork must not copy: threads, sockets, and what a function of the host's knows of."""

from __future__ import annotations

import os
import sys
import time

from dayfly.executor.call import resolve

_SETTLE_SECONDS = 0.2


class Watch:
    """Compares what this process has now with what it had when the watch began."""

    def __init__(self, find_unsafe: str = "") -> None:
        """*find_unsafe*: the path of a function that returns what else is unsafe, in words, or ""."""
        self._find_unsafe = find_unsafe
        self._sockets = _sockets()

    def found(self) -> str:
        """Say what is there that must not be forked; "" when all is well."""
        threads = _other_threads()
        if threads:
            return f"{threads} thread{'s' if threads > 1 else ''} running ({_names()})"
        # Before the sockets: it knows what they are.
        if self._find_unsafe and (found := resolve(self._find_unsafe)()):
            return str(found)
        new = _sockets() - self._sockets
        return f"{len(new)} open socket{'s' if len(new) > 1 else ''}" if new else ""


def _other_threads() -> int:
    """Count the threads but this one. One that was joined may take a moment to be gone for the kernel, too."""
    until = time.monotonic() + _SETTLE_SECONDS
    while (count := len(os.listdir("/proc/self/task")) - 1) and time.monotonic() < until:
        time.sleep(0.005)
    return count


def _names() -> str:
    threading = sys.modules.get("threading")
    names = [thread.name for thread in threading.enumerate()[1:]] if threading else []
    return ", ".join(names) or "not Python's"


def _sockets() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the listing's own
        if target.startswith("socket:"):
            found.add(target)
    return found
