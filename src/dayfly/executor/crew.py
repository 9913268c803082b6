"""
Parent side: the children of one executor, as its face sees them.

Ready children and their template are the nursery's, system calls the supervisor's.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable

from dayfly.executor import heap, holes
from dayfly.executor.budget import Share
from dayfly.executor.call import Call
from dayfly.executor.children import Child, State
from dayfly.executor.errors import ExecutorClosed
from dayfly.executor.launchers import Host, Launcher
from dayfly.executor.nursery import Nursery
from dayfly.executor.outcome import ChildExit, Outcome, RunReport
from dayfly.executor.recycle import RecyclePolicy
from dayfly.executor.supervisor import Supervisor
from dayfly.executor.terms import Terms


class Crew:
    """Runs calls in children; see Runner."""

    def __init__(
        self,
        terms: Terms,
        policy: RecyclePolicy,
        make_launcher: Callable[[Host], Launcher],
        *,
        concurrency: int,
        standby: int,
        idle_seconds: float | None,
        measures_growth: bool,
    ) -> None:
        self.concurrency = concurrency
        self._pid = os.getpid()
        self.supervisor = Supervisor(terms, policy, make_launcher)
        self.supervisor.watch.measures_growth = measures_growth
        self.children = self.supervisor.children
        self.nursery = Nursery(self.supervisor, standby=standby, idle_seconds=idle_seconds)

    @property
    def reports(self) -> list[RunReport]:
        """Reports that nobody took yet."""
        return self.supervisor.reports

    @reports.setter
    def reports(self, reports: list[RunReport]) -> None:
        self.supervisor.reports = reports

    @property
    def exits(self) -> deque[ChildExit]:
        """What became known of children after their reports."""
        return self.supervisor.exits

    @exits.setter
    def exits(self, exits: deque[ChildExit]) -> None:
        self.supervisor.exits = exits

    @property
    def standby(self) -> int:
        """How many children are kept ready beyond those that run."""
        return self.nursery.standby

    @standby.setter
    def standby(self, count: int) -> None:
        self.nursery.standby = count

    @property
    def running(self) -> int:
        """How many calls run now."""
        return self.children.count(State.BUSY)

    @property
    def free_slots(self) -> int:
        """How many calls may be started now."""
        return self.concurrency - self.running

    @property
    def child_pids(self) -> list[int]:
        """The pids of all children, standby and leaving ones too."""
        return [child.pid for child in self.children]

    @property
    def all_pids(self) -> list[int]:
        """The pids of all children, and of the template if there is one."""
        return self.child_pids + self.supervisor.launcher.pids()

    @property
    def expects_children(self) -> bool:
        """Whether children were asked for that are not there yet."""
        return self.supervisor.unborn > 0

    @property
    def is_empty(self) -> bool:
        """Whether no child is left, or on its way."""
        return not len(self.children) and not self.supervisor.unborn

    def is_ready(self, *, waiting: int) -> bool:
        """Tell whether a child waits for a call; else have one come, unless enough are on their way."""
        while self.children.standby() is None:
            is_enough = self.supervisor.unborn >= min(waiting, self.free_slots)
            if is_enough or not self.nursery.spawn():
                return False
        return True

    def start(self, call: Call) -> None:
        """Hand *call* to a child on standby."""
        child = self.children.standby()
        assert child is not None, "ask is_ready first"
        self.supervisor.send_call(child, call)

    def shares(self) -> list[Share]:
        """Return what the running calls hold of the memory budget."""
        return [
            Share(child.call.memory_estimate_bytes, child.growth_bytes)
            for child in self.children
            if child.state is State.BUSY and child.call is not None
        ]

    def wait(self, timeout: float | None, *, waiting: int = 0) -> None:
        """Handle what children want; not longer than until a birth may be tried again that somebody waits for."""
        self._refuse_copy()
        again = self.nursery.no_birth_before
        if waiting and self.free_slots > 0 and again:
            pause = max(again - time.monotonic(), 0.0)
            timeout = pause if timeout is None else min(timeout, pause)
        self.supervisor.wait(timeout)

    def next_event(self, *, waiting: int, has_work: bool) -> float | None:
        """Return when something is due, on the monotonic clock."""
        moment = self.supervisor.next_event()
        rest, again = self.nursery.rests_at, self.nursery.no_birth_before
        if rest is not None and not has_work:
            moment = min(moment or rest, rest)
        if waiting and self.free_slots and again:
            moment = min(moment or again, again)
        return moment

    def fileno(self) -> int:
        """Return a descriptor that is readable when a child wants something."""
        return self.supervisor.fileno()

    def warm_up(self, *, freeze: bool, huge_pages: bool, immortal: bool) -> None:
        """Freeze the heap, and fork the standby children."""
        if freeze:
            heap.freeze(immortal=immortal)
        if immortal or huge_pages:  # this process lives to fork
            holes.fill()
        if huge_pages:
            self.supervisor.launcher.use_huge_pages()
        self.nursery.top_up(is_work_waiting=False)

    def wake(self) -> None:
        """End the rest: there is work."""
        self._refuse_copy()
        self.nursery.wake()

    def keep_ready(self, *, waiting: int, has_work: bool) -> None:
        """Have children forked ahead; or let those go that nobody wants any more."""
        self.nursery.rest_when_idle(has_work=has_work)
        self.nursery.top_up(is_work_waiting=waiting > 0)

    def dismiss_standby(self) -> None:
        """Let the waiting children go, and fork no more ahead."""
        self.nursery.dismiss()

    def say_recorded(self, call_ids: Iterable[str], *, stands: bool) -> None:
        """Let the children of reported calls go on: each hears of all of its own at once."""
        said: dict[Child, list[str]] = {}
        for call_id in call_ids:
            child = self.children.waiting_for(call_id)
            if child is not None:
                said.setdefault(child, []).append(call_id)
        for child, ids in said.items():
            self.supervisor.say_recorded(child, ids, stands=stands)

    def end(self, call_id: str, why: Outcome, *, grace_seconds: float) -> bool:
        """Stop a running call: TERM to its child's group, then KILL. It is cancelled only if nothing else ends it."""
        child = self.children.running(call_id)
        if child is None or (why is Outcome.CANCELLED and child.ending is not None):
            return False
        self.supervisor.end(child, why, grace_seconds=grace_seconds)
        return True

    def stop(self, *, grace_seconds: float) -> None:
        """Stop all running calls."""
        for child in self.children:
            if child.state is State.BUSY:
                self.supervisor.end(child, Outcome.STOPPED, grace_seconds=grace_seconds)

    def output_of(self, call_id: str) -> bytes | None:
        """Return the tail of what a running call has written so far."""
        child = self.children.running(call_id)
        return None if child is None else bytes(child.output)

    def renew(self) -> None:
        """Load the project anew, where children come from a template."""
        self.supervisor.launcher.renew()

    def close(self, *, leave_seconds: float) -> None:
        """Let the children leave, kill those that do not, and reap all. A forked copy of the host leaves them alone."""
        if not self._is_here:
            return
        self.stop(grace_seconds=leave_seconds)
        deadline = time.monotonic() + leave_seconds
        while True:
            self.dismiss_standby()  # also those that finished their call meanwhile
            for child in self.children:
                if child.state is State.REPORTED:
                    self.supervisor.hang_up(child)
            left = deadline - time.monotonic()
            if self.is_empty or left <= 0:
                break
            self.supervisor.wait(left)
        self.supervisor.close()

    @property
    def _is_here(self) -> bool:
        """Whether this is the process that made the executor, and not a forked copy, with the same lines to its children."""
        return self._pid == os.getpid()

    def _refuse_copy(self) -> None:
        if not self._is_here:
            message = f"This executor belongs to process {self._pid}, of which this is a copy: make another one here."
            raise ExecutorClosed(message)
