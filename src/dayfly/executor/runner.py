"""
Parent side: the seam between the face of an executor and what runs its calls.

The face (executor.py) keeps the calls that wait, and says what becomes of reports. Behind it are
children (crew.py), or the host's own process (inline.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from dayfly.executor.budget import Share
from dayfly.executor.call import Call
from dayfly.executor.outcome import ChildExit, Outcome, RunReport

#: No wait is longer: epoll and poll take 24 days at most, and infinity not at all.
LONGEST_WAIT_SECONDS = 3600.0


class Runner(Protocol):
    """Runs the calls of one executor. *waiting* is how many calls wait with the face."""

    #: Reports that nobody took yet.
    reports: list[RunReport]
    #: What became known of children after their reports.
    exits: deque[ChildExit]
    #: How many children are kept ready beyond those that run.
    standby: int

    @property
    def concurrency(self) -> int:
        """How many calls run at a time."""

    @property
    def running(self) -> int:
        """How many calls run now."""

    @property
    def free_slots(self) -> int:
        """How many calls may be started now."""

    @property
    def child_pids(self) -> list[int]:
        """The pids of all children."""

    @property
    def all_pids(self) -> list[int]:
        """The pids of all children, and of what they come from."""

    @property
    def expects_children(self) -> bool:
        """Whether children were asked for that are not there yet."""

    @property
    def is_empty(self) -> bool:
        """Whether no child is left, or on its way."""

    def is_ready(self, *, waiting: int) -> bool:
        """Tell whether `start` can take a call now; else see to it that it can soon, if possible."""

    def start(self, call: Call) -> None:
        """Run *call*: its report is among `reports`, now or later. Only when `is_ready`."""

    def shares(self) -> list[Share]:
        """Return what the running calls hold of the memory budget."""

    def wait(self, timeout: float | None, *, waiting: int = 0) -> None:
        """Handle what comes, waiting up to *timeout* seconds, or an hour (None: until something happens)."""

    def next_event(self, *, waiting: int, has_work: bool) -> float | None:
        """Return when something is due, on the monotonic clock."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when something has come."""

    def warm_up(self, *, freeze: bool, huge_pages: bool, immortal: bool) -> None:
        """Get ready to fork: see Executor.warm_up."""

    def wake(self) -> None:
        """Note that there is work."""

    def keep_ready(self, *, waiting: int, has_work: bool) -> None:
        """Have children forked ahead; or let those go that nobody wants any more."""

    def dismiss_standby(self) -> None:
        """Let the waiting children go, and fork no more ahead."""

    def say_recorded(self, call_ids: Iterable[str], *, stands: bool) -> None:
        """
        Let what waits for the record of *call_ids* go on, or be forgotten where a report does not stand.

        Harmless when nothing waits.
        """

    def end(self, call_id: str, why: Outcome, *, grace_seconds: float) -> bool:
        """Stop a running call; tell whether it is being stopped for that."""

    def stop(self, *, grace_seconds: float) -> None:
        """Stop all running calls."""

    def output_of(self, call_id: str) -> bytes | None:
        """Return the tail of what a running call has written so far; None when that is unknown."""

    def renew(self) -> None:
        """Load the project anew, where children come from a template."""

    def close(self, *, leave_seconds: float) -> None:
        """Let children leave for *leave_seconds*, then kill them; close every descriptor."""
