"""
Parent side: the face for daemons with a loop of their own.

    executor = Executor(concurrency=2)
    executor.submit(Call.of(work, 42))
    while executor.has_work:
        for report in executor.poll(timeout=1.0):
            print(report.outcome, report.peak_rss_bytes)
    executor.close()

It starts no thread, installs no signal handler, never waits for a process that is not
its own, and keeps no history. `fileno()` fits into any selector.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from types import TracebackType
from typing import Self

from dayfly.executor import orphans, reports
from dayfly.executor.budget import Budget
from dayfly.executor.call import Call
from dayfly.executor.errors import CallNotSendable, ExecutorClosed
from dayfly.executor.makers import make_runner
from dayfly.executor.outcome import ChildExit, Outcome, RunReport
from dayfly.executor.recycle import AfterCalls, RecyclePolicy
from dayfly.executor.runner import LONGEST_WAIT_SECONDS
from dayfly.executor.source import Source
from dayfly.executor.terms import Terms

logger = logging.getLogger("dayfly.executor")


class Executor:
    """
    Runs calls in children, each of which serves as many as the policy says: one, by default.

    The *launcher* says how children come to be:

    - ``fork``: straight from this process; they see it as it is at that moment.
    - ``copy``: from a copy of this process as it is at the first fork, not from what it has
      become since: cheaper, for a host that changes no more.
    - ``template``: from a fresh interpreter that has loaded what *source* names.
    - ``spawn``: a fresh interpreter for each child, which loads what *source* names.
    - ``inline``: not at all. Calls run in this process, one at a time, each within a `poll`; what
      needs a process of its own does not act. For debugging and tests: see inline.py.
    """

    def __init__(
        self,
        *,
        concurrency: int = 1,
        policy: RecyclePolicy | None = None,
        standby: int | None = None,
        terms: Terms | None = None,
        record_by_hand: bool = False,
        launcher: str = "fork",
        source: Source | None = None,
        idle_seconds: float | None = None,
        memory_budget_bytes: int | None = None,
    ) -> None:
        """
        Make an executor; children are forked when there is something to do, or by `warm_up`.

        *standby* children beyond the running ones are forked ahead, so that a call starts
        at once; default: as many as *concurrency*. With *record_by_hand* the host calls
        `say_recorded` for every report; otherwise that happens as soon as `poll` returns it.

        With *idle_seconds*, standby children and template leave when nothing was run for so long.

        A call is not started while what it and the running ones are expected to hold (see
        Call.memory_estimate_bytes) or were seen to hold comes to more than *memory_budget_bytes*;
        see budget.py.

        Raises:
            ValueError: *concurrency* is not above zero, *standby* is below zero, or there is
                no such *launcher*.
            CannotStart: *terms* hold what cannot be told to a fresh interpreter.
        """
        _check("concurrency", concurrency, least=1)
        _check("standby", 0 if standby is None else standby, least=0)
        self.terms = terms or Terms()
        self._record_by_hand = record_by_hand
        self._waiting: deque[Call] = deque()
        self._closed = False
        #: Calls that were handed to a child, ever.
        self.started = 0
        self._budget = Budget(memory_budget_bytes)
        self._runner = make_runner(
            launcher,
            self.terms,
            source or Source(),
            policy=policy or AfterCalls(1),
            concurrency=concurrency,
            standby=concurrency if standby is None else standby,
            idle_seconds=idle_seconds,
            measures_growth=memory_budget_bytes is not None,
        )
        #: How many calls run at a time; 1 with `inline`, whatever was asked for.
        self.concurrency = self._runner.concurrency

    def warm_up(
        self, *, freeze: bool = True, huge_pages: bool = False, immortal: bool = False
    ) -> None:
        """
        Get ready to fork: freeze the heap, so that no collection copies pages, and fork the standby children.

        Call it once, after everything is imported. Freezing again and again would leak.
        *huge_pages*: see hugepages.py; without effect where the kernel refuses. *immortal*: code
        is never freed, so that no child copies it to count references: see heap.py.
        """
        self._runner.warm_up(freeze=freeze, huge_pages=huge_pages, immortal=immortal)

    def submit(self, call: Call) -> str:
        """
        Take *call*; it starts when a child is free. Return its id.

        Raises:
            ExecutorClosed: this executor is closed, or this is a forked copy of the process that made it.
            CallNotSendable: the payload is larger than `terms.max_value_bytes`.
        """
        if self._closed:
            raise ExecutorClosed("This executor is closed and takes no more calls.")
        self._runner.wake()
        if len(call.payload) > self.terms.max_value_bytes:
            message = (
                f"The payload of {call.title or call.target} is {len(call.payload)} bytes; "
                f"the limit is {self.terms.max_value_bytes} (Terms.max_value_bytes)."
            )
            raise CallNotSendable(message)
        self._waiting.append(call)
        return call.call_id

    def poll(self, timeout: float | None = None) -> list[RunReport]:
        """
        Look after the children for up to *timeout* seconds (None: until something happens).

        Return the reports that came in; maybe none. Every submitted call yields
        exactly one report, sooner or later, whatever becomes of its child. A *timeout* below
        zero, as of a deadline that has passed, is one of zero.
        """
        if timeout is not None:
            timeout = max(timeout, 0.0)  # for epoll and poll, less than zero is for ever
        self.tend()
        if not self._runner.reports and timeout != 0:
            self._runner.wait(timeout, waiting=self._startable)
            self._dispatch()
        if not self._record_by_hand:
            # Before they are taken: a callback of an inline call may be interrupted.
            self.say_recorded(*(report.call_id for report in self._runner.reports))
        found, self._runner.reports = self._runner.reports, []
        return found

    def tend(self) -> None:
        """
        Look after the children without waiting, and leave reports to the next `poll`.

        For a host that waits for something else in the middle of its work. Calls that run `inline` are
        left to `poll`, too.
        """
        self._runner.wait(0)  # first, so that no call goes to a child that is dead by now
        self._dispatch()
        self._runner.keep_ready(waiting=self.waiting, has_work=self.has_work)

    def say_recorded(self, *call_ids: str) -> None:
        """Let the children of reported calls go on. Harmless when they are gone, or did not wait."""
        self._runner.say_recorded(call_ids, stands=True)

    def say_refused(self, *call_ids: str) -> None:
        """
        Let the children of reported calls go on, without what waits for the record of the report.

        For a host that recorded something else: what the call meant to tell the world is not so.
        """
        self._runner.say_recorded(call_ids, stands=False)

    def take_exits(self) -> list[ChildExit]:
        """
        Return what became known of reported calls since the last time, as their children were joined.

        The last 256 of them are kept: a host that wants all asks after each `poll`.
        """
        found = list(self._runner.exits)
        self._runner.exits.clear()
        return found

    def withdraw(self) -> list[Call]:
        """Take back the calls that no child got yet."""
        calls = list(self._waiting)
        self._waiting.clear()
        return calls

    def end(self, call_id: str, *, grace_seconds: float = 5.0) -> bool:
        """Stop one call: TERM to its child's group, then KILL. Tell whether it was running."""
        return self._runner.end(call_id, Outcome.STOPPED, grace_seconds=grace_seconds)

    def cancel(self, call_id: str, *, grace_seconds: float = 5.0) -> bool:
        """
        Drop one call: take it back if it waits, end it (TERM, then KILL) if it runs.

        Its report (outcome `cancelled`) comes by `poll`. False when it is over already, or unknown.
        """
        for call in self._waiting:
            if call.call_id == call_id:
                self._waiting.remove(call)
                self._runner.reports.append(reports.of_unstarted(call, Outcome.CANCELLED))
                return True
        return self._runner.end(call_id, Outcome.CANCELLED, grace_seconds=grace_seconds)

    def output_of(self, call_id: str) -> bytes | None:
        """
        Return the tail of what a running call has written so far; None when it does not run.

        As of the last `poll`, and at most `terms.max_output_bytes`.
        """
        return self._runner.output_of(call_id)

    def stop(self, *, grace_seconds: float = 5.0) -> None:
        """Stop all running calls; their reports (outcome `stopped`) come by `poll`."""
        self._runner.stop(grace_seconds=grace_seconds)

    def dismiss_standby(self) -> None:
        """Let the waiting children go, and fork no more ahead."""
        self._runner.dismiss_standby()

    def renew(self) -> None:
        """
        Load the project anew, for what has changed on disk. Without effect on other launchers than `template`.

        Running calls go on; calls go to children of the new template as soon as that is ready.
        """
        self._runner.renew()

    def close(self, *, leave_seconds: float = 2.0) -> None:
        """
        Let the children leave, kill those that do not, and reap all. Reports are dropped.

        A report that was not said to be recorded stays so: callbacks of `when_recorded`
        that still wait for it never run. Safe to call twice.
        """
        if self._closed:
            return
        self._closed = True
        self._waiting.clear()
        self._runner.close(leave_seconds=leave_seconds)

    def fileno(self) -> int:
        """Return a descriptor that is readable when `poll` has something to do."""
        return self._runner.fileno()

    def seconds_to_next_event(self, *, leave_reports: bool = False) -> float | None:
        """
        Return how long a host may wait on `fileno` before it must call `poll` anyway.

        With *leave_reports*: before it must call `tend`, which leaves reports where they are.
        """
        if self._runner.reports and not leave_reports:
            return 0.0
        moment = self._runner.next_event(waiting=self._startable, has_work=self.has_work)
        if moment is None:
            return None
        return min(max(moment - time.monotonic(), 0.0), LONGEST_WAIT_SECONDS)

    @property
    def standby(self) -> int:
        """How many children are kept ready beyond those that run."""
        return self._runner.standby

    @standby.setter
    def standby(self, count: int) -> None:
        self._runner.standby = count

    @property
    def running(self) -> int:
        """How many calls run now."""
        return self._runner.running

    @property
    def waiting(self) -> int:
        """How many calls wait for a child."""
        return len(self._waiting)

    @property
    def has_work(self) -> bool:
        """Whether a call waits, runs, or has a report that nobody took."""
        return bool(self._waiting or self.running or self._runner.reports)

    @property
    def child_pids(self) -> list[int]:
        """The pids of all children, standby and leaving ones too."""
        return self._runner.child_pids

    @property
    def all_pids(self) -> list[int]:
        """The pids of all children, and of the template if there is one."""
        return self._runner.all_pids

    def reap_orphans(self) -> int:
        """
        Wait for dead processes that were left to this one (as PID 1, or a subreaper); return how many.

        Only for a host that starts no processes beside this executor's: it would lose their exit status.
        """
        return orphans.reap(self.all_pids) if orphans.inherits() else 0

    @property
    def expects_children(self) -> bool:
        """Whether children were asked for that are not there yet."""
        return self._runner.expects_children

    @property
    def is_empty(self) -> bool:
        """Whether no child is left, or on its way."""
        return self._runner.is_empty

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _dispatch(self) -> None:
        while self._waiting and self._runner.free_slots > 0 and self._fits(self._waiting[0]):
            if not self._runner.is_ready(waiting=self.waiting):
                return
            call = self._waiting.popleft()
            if self._budget.is_too_small_for(call.memory_estimate_bytes):
                logger.warning(
                    "%s runs alone: it expects to hold %d bytes, more than the whole memory budget",
                    call.title or call.call_id,
                    call.memory_estimate_bytes,
                )
            self.started += 1
            self._runner.start(call)

    @property
    def _startable(self) -> int:
        """How many calls wait for a child, and not for memory. No birth is tried again for the others."""
        return self.waiting if self._waiting and self._fits(self._waiting[0]) else 0

    def _fits(self, call: Call) -> bool:
        if self._budget.total_bytes is None:
            return True
        return self._budget.admits(call.memory_estimate_bytes, self._runner.shares())


def _check(name: str, value: int, *, least: int) -> None:
    if value < least:
        words = "above 0" if least else "from 0 up"
        message = f"{name}={value!r}: give a whole number {words}"
        raise ValueError(message)


def run_call(call: Call, *, terms: Terms | None = None, launcher: str = "fork") -> RunReport:
    """Run one call in a child of its own, or where else *launcher* says, and wait for its report."""
    with contextlib.closing(Executor(standby=0, terms=terms, launcher=launcher)) as executor:
        executor.submit(call)
        while not (found := executor.poll()):
            pass
        return found[0]
