"""
Parent side: the registry of children. It is told events and the time, and makes no system call.

A child is STANDBY until it gets a call, then BUSY, and after its report on STANDBY again. After its
last one it is LEAVING; first, if something in it waits for it, until all its reports are recorded.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import ClassVar
from weakref import WeakValueDictionary

from dayfly.executor.call import Call
from dayfly.executor.limits import NO_LIMITS, Limits
from dayfly.executor.outcome import Cause, MemoryReading, Outcome
from dayfly.executor.wire import Reader

#: How often a busy child's memory is looked at; the last look survives its death.
SAMPLE_SECONDS = 1.0
#: The same for a child that may pass a limit between two looks.
LIMIT_SAMPLE_SECONDS = 0.1


class State(Enum):
    """Where a child stands."""

    STANDBY = auto()
    BUSY = auto()
    #: It gets no more calls, and waits to hear that what it reported was recorded.
    REPORTED = auto()
    LEAVING = auto()


@dataclass(slots=True, kw_only=True, eq=False)
class Child:
    """What the parent knows of one child."""

    pid: int
    #: Readable when the child is dead; None where the system has no pidfds.
    pidfd: int | None
    channel: socket.socket
    output_fd: int
    reader: Reader
    #: How many calls it may serve in all; None for no limit.
    calls_allowed: int | None
    #: None where nobody has told.
    fork_seconds: float | None
    parent_before_fork: MemoryReading | None
    state: State = State.STANDBY
    calls_served: int = 0
    #: How long it may load before it is ready for a call; None: it was born ready, or is ready now.
    load_seconds: float | None = None
    #: Whether it was executed: until then it was its parent's memory that it held.
    was_executed: bool = False
    #: The call that waits for it to be ready.
    held_call: Call | None = None
    #: When it was forked, on the monotonic clock.
    born: float = field(default_factory=time.monotonic)
    #: What it held (RssAnon) before its first call.
    anon_at_first: int | None = None
    #: The current call; after the report the last one, until the child gets another. Without its
    #: payload, which is for the child alone: an idle one must not keep what may be large in our memory.
    call: Call | None = None
    #: Calls that were reported, and of which something in the child waits to hear that they are recorded.
    unrecorded: set[str] = field(default_factory=set)
    #: Those that were recorded while it is busy: it hears of them after its call, if it lives then.
    unheard: set[str] = field(default_factory=set)
    #: Those of the current call.
    limits: Limits = NO_LIMITS
    dispatched_ns: int = 0
    #: Bytes of the call that the socket had no room for yet.
    unsent: bytearray = field(default_factory=bytearray)
    #: Its socket is spoilt, so it can take no call; it is being killed, or dead already.
    is_deaf: bool = False
    #: It is dead, and somebody waits for it: its number may be another's soon.
    is_reaped: bool = False
    output: bytearray = field(default_factory=bytearray)
    output_bytes: int = 0
    #: When something is due for this child, on the monotonic clock.
    deadline: float | None = None
    #: Why we end it: set when TERM is sent; a second deadline means KILL.
    ending: Outcome | None = None
    #: What is behind that, where the outcome can have several causes.
    cause: Cause | None = None
    #: Why we end it, in words, when no outcome says so.
    complaint: str | None = None
    #: When its call is to be told that its time is over; None: never, or told already.
    soft_deadline: float | None = None
    was_told: bool = False
    last_sample: MemoryReading | None = None
    sample_due: float | None = None
    #: What it and its descendants held, and how much CPU time they had used, before the call.
    held_at_start: int = 0
    cpu_at_start: float = 0.0
    #: How much more they held when we last looked, where somebody wants to know.
    growth_bytes: int = 0
    #: It was in a cgroup of its own when it died: had the kernel killed it for memory, that would know.
    is_confined: bool = False
    #: Descriptors (pidfds) of descendants that left its process group; closed when it is reaped.
    escaped: list[int] = field(default_factory=list)

    @property
    def is_last_call(self) -> bool:
        """Whether the current call is the last that it may serve."""
        return self.calls_allowed is not None and self.calls_served >= self.calls_allowed

    @property
    def sample_seconds(self) -> float:
        """How often it is looked at while it is busy."""
        is_limited = self.limits.memory_bytes is not None or self.limits.cpu_seconds is not None
        return LIMIT_SAMPLE_SECONDS if is_limited else SAMPLE_SECONDS


class Children:
    """All children that are not reaped yet."""

    #: Those of all executors of this process; looked at when a process is found that may be one of them.
    _everywhere: ClassVar[WeakValueDictionary[int, Children]] = WeakValueDictionary()

    def __init__(self) -> None:
        self._by_pid: dict[int, Child] = {}
        self._everywhere[id(self)] = self

    def __len__(self) -> int:
        return len(self._by_pid)

    def __contains__(self, pid: int) -> bool:
        return pid in self._by_pid

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._by_pid.values()))

    def add(self, child: Child) -> None:
        """Enter a newborn child."""
        self._by_pid[child.pid] = child
        if child.load_seconds is not None:
            child.deadline = child.born + child.load_seconds

    def remove(self, child: Child) -> None:
        """Forget a child that was reaped."""
        del self._by_pid[child.pid]

    def count(self, state: State) -> int:
        """Count the children in *state*."""
        return sum(child.state is state for child in self._by_pid.values())

    def standby(self) -> Child | None:
        """Return the child that has waited longest for a call, of those that can take one."""
        for child in self._by_pid.values():
            if child.state is State.STANDBY and not child.is_deaf:
                return child
        return None

    def running(self, call_id: str) -> Child | None:
        """Return the child that runs *call_id*."""
        for child in self._by_pid.values():
            if (
                child.state is State.BUSY
                and child.call is not None
                and child.call.call_id == call_id
            ):
                return child
        return None

    def waiting_for(self, call_id: str) -> Child | None:
        """Return the child that waits to hear that *call_id* was recorded."""
        for child in self._by_pid.values():
            if call_id in child.unrecorded:
                return child
        return None

    def dispatch(
        self,
        child: Child,
        call: Call,
        *,
        now: float,
        now_ns: int,
        limits: Limits = NO_LIMITS,
    ) -> None:
        """
        Note that *child* gets *call*. The deadline is written before the call is sent.

        To a child that loads still it is sent once that is ready; its limits begin then. *limits* are
        for a call that brings none.
        """
        limits = call.limits or limits
        child.state = State.BUSY
        child.call = replace(call, payload=b"")
        child.limits = limits
        child.calls_served += 1
        child.dispatched_ns = now_ns
        child.ending = None
        child.cause = None
        child.complaint = None
        child.last_sample = None
        child.growth_bytes = 0
        child.was_told = False
        if child.load_seconds is None:
            self._start_clocks(child, now)
        else:
            child.held_call = call

    def ready(self, child: Child, *, now: float, now_ns: int) -> Call | None:
        """Note that *child* has loaded; return the call that waited for that."""
        child.load_seconds = child.deadline = None
        call, child.held_call = child.held_call, None
        if call is not None:
            child.dispatched_ns = now_ns
            self._start_clocks(child, now)
        return call

    def _start_clocks(self, child: Child, now: float) -> None:
        child.sample_due = now + child.sample_seconds
        hard, soft = child.limits.timeout_seconds, child.limits.soft_timeout_seconds
        child.deadline = None if hard is None else now + hard
        child.soft_deadline = None if soft is None else now + soft

    def reported(self, child: Child, *, waits: bool, keep: bool, now: float, leave: float) -> None:
        """Note that the report of the current call is in."""
        child.sample_due = None
        child.soft_deadline = None
        child.deadline = None
        child.unheard.clear()
        if waits and child.call is not None:
            child.unrecorded.add(child.call.call_id)
        if keep:
            child.state = State.STANDBY
        else:
            self.let_go(child, now=now, leave=leave)

    def recorded(
        self, child: Child, call_id: str, *, stands: bool, now: float, leave: float
    ) -> None:
        """Note that *call_id* is recorded, as it was reported or not, and that the child is told."""
        child.unrecorded.discard(call_id)
        if child.state is State.BUSY:
            if stands:
                child.unheard.add(call_id)
        elif child.state is State.REPORTED:
            self.let_go(child, now=now, leave=leave)

    def let_go(self, child: Child, *, now: float, leave: float) -> None:
        """Note that the child gets no more calls: it leaves when nothing in it waits any more."""
        if child.unrecorded:
            child.state = State.REPORTED
        else:
            child.state = State.LEAVING
            child.deadline = now + leave

    def due(self, now: float) -> list[Child]:
        """Return the children whose deadline has passed."""
        return [c for c in self if c.deadline is not None and c.deadline <= now]

    def soft_due(self, now: float) -> list[Child]:
        """Return the children whose call is to be told now that its time is over."""
        return [c for c in self if c.soft_deadline is not None and c.soft_deadline <= now]

    def samples_due(self, now: float) -> list[Child]:
        """Return the busy children whose memory should be looked at."""
        return [c for c in self if c.sample_due is not None and c.sample_due <= now]

    def next_event(self) -> float | None:
        """Return when the next deadline or sample is due."""
        moments = [
            moment
            for child in self._by_pid.values()
            for moment in (child.soft_deadline, child.deadline, child.sample_due)
            if moment is not None
        ]
        return min(moments, default=None)


def is_known(pid: int) -> bool:
    """Tell whether *pid* is a child of any executor in this process. For any thread."""
    every = [reference() for reference in Children._everywhere.valuerefs()]
    return any(pid in children for children in every if children is not None)
