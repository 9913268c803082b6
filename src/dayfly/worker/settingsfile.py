"""
Parent side: notice that the settings which a template has loaded were changed on disk.

The one file that every template loads, whatever the project is. Found by its name, not imported:
the worker must not load what only tasks need.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

LOOK_SECONDS = 1.0
#: How long a file must have been left alone: before that it may be half of a change.
QUIET_SECONDS = 2.0

#: Modification time, size and inode.
Stamp = tuple[int, int, int]


class SettingsFile:
    """Watches the file of one module of settings; where it is not to be found, nothing changes."""

    def __init__(self, module: str) -> None:
        self.path = find(module)
        self._next_look = 0.0
        self.take()

    def take(self) -> None:
        """Take what is there now for known, as a template is about to load it."""
        self._known = self._latest = self._stamp()
        self._latest_since = time.monotonic()

    def was_changed(self) -> bool:
        """Tell, once for each change, whether the file is another than the known one. Looks once a second."""
        now = time.monotonic()
        if self.path is None or now < self._next_look:
            return False
        self._next_look = now + LOOK_SECONDS
        stamp = self._stamp()
        if stamp != self._latest:
            self._latest, self._latest_since = stamp, now
        is_whole = stamp is not None and now - self._latest_since >= QUIET_SECONDS
        if not is_whole or stamp == self._known:
            return False
        self._known = stamp
        return True

    def _stamp(self) -> Stamp | None:
        try:
            status = (self.path or Path()).stat()
        except OSError:
            return None  # removed, or being written anew
        return status.st_mtime_ns, status.st_size, status.st_ino


def find(module: str) -> Path | None:
    """Return the source of *module* where it is a plain file on the path, as settings are."""
    below = Path(*module.split("."))
    for entry in sys.path:
        for name in (below / "__init__.py", below.with_suffix(".py")):  # as Python looks
            path = Path(entry).absolute() / name
            if path.is_file():
                return path
    return None
