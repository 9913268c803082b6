"""
Parent side: the limits of calls that run. Looks at clocks and at memory, and ends what went too far.

Ending is asking (TERM to all processes of the call), and after the grace killing. What holds
too much memory is killed at once: it would use the grace to hold more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from dayfly.executor import kin, memory
from dayfly.executor.cgroup import Cgroups
from dayfly.executor.child_codes import SOFT_SIGNAL
from dayfly.executor.children import Child, Children, State
from dayfly.executor.kernelkills import KernelKills
from dayfly.executor.outcome import Cause, Outcome
from dayfly.executor.terms import Terms


class Watch:
    """Watches the children of one executor."""

    def __init__(self, children: Children, terms: Terms) -> None:
        #: Whether growth is looked at also where no limit asks for it.
        self.measures_growth = False
        self.kills = KernelKills()
        self._children = children
        self._terms = terms
        #: None: not looked for yet, or not there.
        self._cgroups: Cgroups | None = None
        self._looks_for_cgroups = terms.use_cgroup

    def begin(self, child: Child) -> None:
        """Note what a child holds before the call that it is about to get."""
        self.kills.look()
        limits = child.limits
        if limits.memory_bytes is not None or self.measures_growth:
            child.held_at_start = kin.held_bytes(child.pid) or 0
        if limits.cpu_seconds is not None:
            child.cpu_at_start = kin.cpu_seconds(child.pid) or 0.0
        if self._looks_for_cgroups and limits.memory_bytes is not None:
            self._cgroups = Cgroups.take_delegated()
            self._looks_for_cgroups = False
            if self._cgroups is not None:
                self.kills = KernelKills()  # for where we are now
        if self._cgroups is not None:
            self._cgroups.confine(child.pid, limits.memory_bytes)

    def keep(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        # First, so that a parent that was held up does not offer what is over its memory time to clean up.
        for child in self._children.samples_due(now):
            self._look_at(child, now)
        for child in self._children.soft_due(now):
            self._tell(child)
        for child in self._children.due(now):
            if child.load_seconds is not None and child.ending is None:
                self._lose_patience(child, child.load_seconds)
            elif child.ending is None and child.state is State.BUSY:
                self.end(child, Outcome.TIMED_OUT, Cause.HARD_LIMIT)
            else:
                self.signal(child, signal.SIGKILL)
                child.deadline = None

    def end(
        self,
        child: Child,
        why: Outcome,
        cause: Cause | None = None,
        *,
        grace_seconds: float | None = None,
    ) -> None:
        """
        Ask all processes of a child to leave; kill them after *grace_seconds* (default: its limits').

        Asked again, with less grace, they have no more than that.
        """
        if grace_seconds is None:
            grace_seconds = child.limits.grace_seconds
        deadline = time.monotonic() + grace_seconds
        if child.ending is None:
            child.ending, child.cause = why, cause
            child.soft_deadline = None
            self.signal(child, signal.SIGTERM)
            child.deadline = deadline
        elif child.deadline is not None:
            child.deadline = min(child.deadline, deadline)

    def signal(self, child: Child, number: int) -> None:
        """Signal all processes of a child; none when it is reaped, as the number may be another's."""
        if child.is_reaped:
            return
        if number == signal.SIGKILL and self._cgroups is not None:
            self._cgroups.kill(child.pid)
        kin.send(child.pid, number, child.escaped)

    def reaped(self, child: Child) -> None:
        """Let go of what was kept for a child that is dead."""
        if child.ending is not None:
            kin.send_to_escaped(child.escaped, signal.SIGKILL)
        for fd in child.escaped:
            os.close(fd)
        child.escaped.clear()
        if self._cgroups is not None:
            child.is_confined = self._cgroups.holds(child.pid)
            if child.ending is None and self._cgroups.was_full(child.pid):
                child.ending, child.cause = Outcome.OVER_MEMORY, Cause.CGROUP_LIMIT
            elif child.ending is None and self._cgroups.was_killed(child.pid):
                child.ending, child.cause = Outcome.KILLED, Cause.OUT_OF_MEMORY
            self._cgroups.remove(child.pid)

    def close(self) -> None:
        """Leave no cgroup behind."""
        if self._cgroups is not None:
            self._cgroups.close()

    def _lose_patience(self, child: Child, load_seconds: float) -> None:
        child.ending = Outcome.EXITED
        child.complaint = (
            f"Child {child.pid} was ended: it was not ready for its first call within"
            f" {load_seconds:g} s. What it loads hangs, or takes longer than `start_seconds` allows."
        )
        self.signal(child, signal.SIGKILL)
        child.deadline = None

    def _tell(self, child: Child) -> None:
        child.soft_deadline = None
        child.was_told = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, SOFT_SIGNAL)

    def _look_at(self, child: Child, now: float) -> None:
        child.sample_due = now + child.sample_seconds
        child.last_sample = memory.quick(child.pid) or child.last_sample
        self.kills.look()
        if child.ending is not None:
            return
        limits = child.limits
        if limits.memory_bytes is not None or self.measures_growth:
            held = kin.held_bytes(child.pid)
            if held is not None:
                child.growth_bytes = max(held - child.held_at_start, 0)
        if limits.memory_bytes is not None and child.growth_bytes > limits.memory_bytes:
            # What relatives share was counted once for each. The exact figure takes longer.
            child.growth_bytes = kin.written_bytes(child.pid, child.held_at_start)
            if child.growth_bytes > limits.memory_bytes:
                child.ending, child.cause = Outcome.OVER_MEMORY, Cause.MEMORY_LIMIT
                child.soft_deadline = None
                self.signal(child, signal.SIGKILL)
                child.deadline = None
                return
        if limits.cpu_seconds is not None:
            used = kin.cpu_seconds(child.pid)
            if used is not None and used - child.cpu_at_start >= limits.cpu_seconds:
                self.end(child, Outcome.TIMED_OUT, Cause.CPU_LIMIT)
