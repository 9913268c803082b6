"""
Parent side: how many children there are. Has them forked ahead, waits a while when births fail, and
lets those on standby go when there is nothing to do.
"""

from __future__ import annotations

import logging
import time

from dayfly.executor.children import State
from dayfly.executor.launchers import NoTemplate
from dayfly.executor.supervisor import Supervisor

logger = logging.getLogger("dayfly.executor")

#: No more are asked for at a time: see MOST_UNANSWERED in template_link.py.
MOST_UNBORN = 64
MAX_BACKOFF_SECONDS = 5.0
#: To load a project that cannot be forked is work, and what is wrong with it is not mended in seconds.
MAX_TEMPLATE_BACKOFF_SECONDS = 30.0


class Nursery:
    """Keeps children ready for one executor."""

    def __init__(self, supervisor: Supervisor, *, standby: int, idle_seconds: float | None) -> None:
        #: Children beyond the running ones.
        self.standby = standby
        #: When a birth may be tried again; 0 when they go well.
        self.no_birth_before = 0.0
        self._supervisor = supervisor
        self._children = supervisor.children
        self._failures = 0
        self._idle_seconds = idle_seconds
        self._busy_at = time.monotonic()
        self._is_resting = False
        self._is_closing = False

    def top_up(self, *, is_work_waiting: bool) -> None:
        """Have children forked ahead; or let those go that nobody wants any more."""
        if self._is_closing or self._is_resting:
            if not is_work_waiting:
                self._dismiss_all()
            return
        missing = self.standby - self._children.count(State.STANDBY) - self._supervisor.unborn
        while missing > 0 and self.spawn():
            missing -= 1

    def spawn(self) -> bool:
        """Have one more child; tell whether it is there, or comes."""
        now = time.monotonic()
        if now < self.no_birth_before or self._is_refused(now):
            return False
        if self._supervisor.unborn >= MOST_UNBORN:
            return False  # the next birth wakes the loop, which comes here again
        self._supervisor.spawn()
        if self._is_refused(now):
            return False
        if self._supervisor.births_go_well:
            self._failures = 0
        self.no_birth_before = 0.0
        return True

    def dismiss(self) -> None:
        """Let the children on standby go, those that are on their way too, and fork no more ahead."""
        self.standby = 0
        self._is_closing = True
        self._dismiss_all()

    def wake(self) -> None:
        """End the rest: there is work."""
        self._is_resting = False

    def rest_when_idle(self, *, has_work: bool) -> None:
        """Let children and template go when nothing was to be done for as long as was said."""
        if has_work or len(self._children) > self._children.count(State.STANDBY):
            self._busy_at = time.monotonic()
            return
        until = self.rests_at
        if until is not None and time.monotonic() >= until:
            self._is_resting = True
            self._supervisor.launcher.rest()

    @property
    def rests_at(self) -> float | None:
        """When it will let go if there is nothing to do until then."""
        if self._idle_seconds is None or self._is_resting:
            return None
        return self._busy_at + self._idle_seconds

    def _dismiss_all(self) -> None:
        while (child := self._children.standby()) is not None:
            self._supervisor.dismiss(child)

    def _is_refused(self, now: float) -> bool:
        """Tell whether births fail, and wait a while then."""
        stillborn, refusal = self._supervisor.stillborn, self._supervisor.refusal
        self._supervisor.stillborn, self._supervisor.refusal = 0, None
        if stillborn:
            self._back_off(now, f"{stillborn} children died at birth", MAX_BACKOFF_SECONDS)
        elif isinstance(refusal, NoTemplate):
            self._back_off(now, str(refusal), MAX_TEMPLATE_BACKOFF_SECONDS)
        elif refusal is not None:
            why = f"the system refused a new process ({refusal.strerror or refusal})"
            self._back_off(now, why, MAX_BACKOFF_SECONDS)
        return bool(stillborn or refusal)

    def _back_off(self, now: float, why: str, longest: float) -> None:
        self._failures += 1
        pause = min(0.1 * 2**self._failures, longest)
        self.no_birth_before = now + pause
        logger.warning("No child was forked: %s. Next try in %.1f s.", why, pause)
