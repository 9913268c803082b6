"""
Parent side: hands the calls of a face to the loop executor, as children come free.

A call stays with the face until a child can have it, so that it can be cancelled at no cost,
and is told `begin` when it is handed over. Whoever waits for it is a `Client`.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Protocol

from dayfly.executor import interpreters, reports
from dayfly.executor.call import Call
from dayfly.executor.errors import CallNotSendable
from dayfly.executor.executor import Executor
from dayfly.executor.makers import INLINE
from dayfly.executor.outcome import Failure, Outcome, RunReport
from dayfly.executor.recycle import AfterCalls
from dayfly.executor.source import Source
from dayfly.executor.terms import Terms

#: What people say to what the loop executor calls it; None is the default. "fork" means a copy of
#: this process that was made before a pool started its thread: a fork from that thread could copy
#: locks that others hold.
LAUNCHERS = {None: "copy", "fork": "copy", "template": "template", "spawn": "spawn"}


class Client(Protocol):
    """Who waits for the end of one call."""

    def begin(self) -> bool:
        """Note that the call starts now; tell whether it is still wanted."""

    def end(self, report: RunReport) -> None:
        """Take the report of the call. Never raises."""

    def refuse(self, error: Exception) -> None:
        """Take the reason why the call cannot be run. Never raises."""

    def take_back(self) -> None:
        """Note that the call, which has not begun, is cancelled. Never raises."""


class Feeder:
    """Between one face and its loop executor. Not for several threads."""

    def __init__(self, executor: Executor, *, standby: int, ahead: int) -> None:
        """
        Keep *standby* children ready at any time, and up to *ahead* while so many calls wait.

        An idle pool so keeps no more children than it was told to.
        """
        self.executor = executor
        #: Others may append to it from any thread.
        self.pending: deque[tuple[Client, Call]] = deque()
        self._standby = standby
        self._ahead = ahead
        self._clients: dict[str, Client] = {}

    @property
    def is_idle(self) -> bool:
        """Whether no call waits or runs."""
        return not (self.pending or self._clients)

    @property
    def clients(self) -> list[Client]:
        """Those whose calls were handed over, and have not ended."""
        return list(self._clients.values())

    def turn(self) -> list[Failure]:
        """Take reports, hand over calls, tell the clients. Return what calls have raised."""
        failures = []
        while True:
            found = self.executor.poll(0)
            handed = self._feed()
            self.executor.standby = max(self._standby, min(self._ahead, len(self.pending)))
            if handed:
                found += self.executor.poll(0)  # starts them
            # Last: it may take a while to unpickle values, and children work meanwhile.
            for report in found:
                self._tell(report)
                if report.failure is not None:
                    failures.append(report.failure)
            if not found:
                return failures

    def dismiss(self) -> None:
        """Let the children go that wait for a call, and keep none ready any more."""
        self._standby = self._ahead = 0
        self.executor.dismiss_standby()

    def stop(self, *, grace_seconds: float) -> None:
        """End all calls that were handed over."""
        for call in self.executor.withdraw():
            self._tell(reports.of_unstarted(call, Outcome.STOPPED))
        self.executor.stop(grace_seconds=grace_seconds)

    def end(self, call_id: str, *, grace_seconds: float) -> None:
        """End one call that was handed over: its report comes as that of others."""
        if self.executor.end(call_id, grace_seconds=grace_seconds) or call_id not in self._clients:
            return
        # No child has it: the system refuses a new one just now. Or it has reported already.
        waiting = self.executor.withdraw()
        for call in waiting:
            if call.call_id == call_id:
                del self._clients[call_id]
            else:
                self.executor.submit(call)

    def _tell(self, report: RunReport) -> None:
        """Tell the client of a call that it has ended; a call that nobody waits for is none of ours."""
        client = self._clients.get(report.call_id)
        if client is not None:
            client.end(report)
            # Only now: should that fail after all, the face refuses all `clients`, this one, too.
            del self._clients[report.call_id]

    def _feed(self) -> bool:
        """Hand over as many calls as there are free slots; tell whether any was."""
        free = self.executor.concurrency - self.executor.running - self.executor.waiting
        handed = False
        while free > 0 and self.pending:
            client, call = self.pending.popleft()
            if not client.begin():
                continue
            try:
                self.executor.submit(call)
            except CallNotSendable as error:
                client.refuse(error)
                continue
            self._clients[call.call_id] = client
            free -= 1
            handed = True
        return handed


def make_feeder(
    *,
    concurrency: int,
    calls_per_child: int | None,
    standby: int,
    launcher: str | None,
    terms: Terms,
) -> Feeder:
    """Make the loop executor of a pool. Here alone the name of a launcher gets its meaning."""
    check_launcher(launcher)
    executor = Executor(
        concurrency=concurrency,
        policy=AfterCalls(calls_per_child or 0),
        standby=0,
        terms=terms,
        launcher=LAUNCHERS[launcher],
        source=Source(main=True),
    )
    ahead = concurrency if calls_per_child == 1 else 0
    return Feeder(executor, standby=standby, ahead=ahead)


def check_launcher(name: str | None, terms: Terms | None = None) -> None:
    """
    Refuse a launcher that there is not, or that cannot give its children *terms*.

    Raises:
        ValueError: it is none of `LAUNCHERS`.
        CannotStart: a hook is no function at module level, and children do not inherit it.
    """
    if name == INLINE:
        message = (
            "launcher='inline' is not available here, where calls run beside their caller: call the"
            " function itself, or use Executor(launcher='inline')."
        )
        raise ValueError(message)
    if name not in LAUNCHERS:
        known = ", ".join(repr(each) for each in LAUNCHERS if each)
        message = f"launcher={name!r} is not available here: give one of {known}"
        raise ValueError(message)
    if terms is not None and name in ("template", "spawn"):
        interpreters.check_hooks(terms)


def workers(count: int | None) -> int:
    """
    Return how many calls run at a time: *count*, or as many as this process may use CPUs.

    Raises:
        ValueError: *count* is not above zero.
    """
    if count is None:
        return (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
    if count <= 0:
        raise ValueError("max_workers must be greater than 0")
    return count


def check_count(calls_per_child: int | None) -> None:
    """
    Check how many calls a child may serve; the errors are those of ProcessPoolExecutor.

    Raises:
        TypeError, ValueError: it is no whole number, or below one.
    """
    if calls_per_child is None:
        return
    if not isinstance(calls_per_child, int):
        raise TypeError("max_tasks_per_child must be an integer")
    if calls_per_child < 1:
        raise ValueError("max_tasks_per_child must be >= 1")
