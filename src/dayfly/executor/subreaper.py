"""Parent side: be the one to whom the kernel gives orphaned children."""

from __future__ import annotations

import ctypes
import os

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Subreaper:
    """
    Asks the kernel for the children of a template that dies, for as long as somebody has templates.

    Source: prctl(2), PR_SET_CHILD_SUBREAPER. What a task left behind passes to its template, and comes
    here when that is gone, too; so it is asked for no longer than it is needed.
    """

    def __init__(self) -> None:
        self._holders: set[int] = set()
        self._was_set = 0
        self._pid = os.getpid()

    def hold(self, holder: int) -> None:
        """Begin, for *holder*; safe to call twice."""
        if self._pid != os.getpid():
            # In a forked copy: the kernel does not pass it on, and those who held it are not here.
            self._holders.clear()
            self._pid = os.getpid()
        if not self._holders:
            before = ctypes.c_int()
            _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
            self._was_set = before.value
            _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._holders.add(holder)

    def release(self, holder: int) -> None:
        """End, for *holder*; then all is as it was before the first."""
        if holder in self._holders:
            self._holders.remove(holder)
            if not self._holders:
                _prctl(_PR_SET_CHILD_SUBREAPER, self._was_set, 0, 0, 0)


subreaper = Subreaper()
