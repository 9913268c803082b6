"""
Parent side: notice that a loaded source file changed.

Tasks need no reload, as each child imports them anew; but those that the worker runs itself do.
"""

from __future__ import annotations

import ast
import time
from pathlib import Path

from django.utils.autoreload import iter_all_python_module_files

from dayfly.worker.announcer import logger

LOOK_SECONDS = 1.0


class SourceWatch:
    """Remembers the modification times of what is loaded."""

    def __init__(self, *, follows_imports: bool = False) -> None:
        """*follows_imports*: watch what is loaded later, too."""
        self._follows_imports = follows_imports
        self._files = list(iter_all_python_module_files())
        self._seen = self._times()
        self._said_of: dict[str, float | None] = {}
        self._next_look = time.monotonic() + LOOK_SECONDS

    def changed(self) -> str | None:
        """Return a file that changed since the start, if all that did can be loaded. Looks once a second at most."""
        now = time.monotonic()
        if now < self._next_look:
            return None
        self._next_look = now + LOOK_SECONDS
        if self._follows_imports:
            known = set(self._files)
            self._files += [path for path in iter_all_python_module_files() if path not in known]
        times = self._times()
        self._seen = {**times, **self._seen}
        changed = [path for path in times if times[path] != self._seen[path]]
        slips = [path for path in changed if self._has_slip(path, times[path])]
        return changed[0] if changed and not slips else None

    def _has_slip(self, path: str, time_of_change: float | None) -> bool:
        """Tell, and say once, whether a file is no Python now: a worker that starts again with it would end."""
        try:
            ast.parse(Path(path).read_bytes(), path)
        except (SyntaxError, ValueError) as error:
            if self._said_of.get(path) != time_of_change:
                logger.warning("%s was changed, and the worker goes on without: %s", path, error)
            self._said_of[path] = time_of_change
            return True
        except OSError:
            pass  # removed
        return False

    def _times(self) -> dict[str, float | None]:
        times: dict[str, float | None] = {}
        for path in self._files:
            try:
                times[str(path)] = path.stat().st_mtime
            except OSError:
                times[str(path)] = None  # being written just now, or removed
        return times
