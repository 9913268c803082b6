"""
Parent side: calls that run in the host's own process, with no child. For debugging and tests.

    poll -> start -> the call -> its report, which the same poll returns

One call in each `poll`: between two of them the host can withdraw what waits, or leave. Nothing is
isolated: what a call changes, leaks or breaks, the host has. What ends a process (os._exit, a
crash, the kernel) ends the host.

Ctrl-C is the host's: KeyboardInterrupt leaves `poll`, and the next `poll` returns the report.
Any other exception, SystemExit too, is the end of the call alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import select
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from time import monotonic_ns
from typing import Any

from dayfly.executor import child, farewell, memory, reports
from dayfly.executor.budget import Share
from dayfly.executor.call import Call
from dayfly.executor.errors import ExecutorBusy
from dayfly.executor.limits import NO_LIMITS
from dayfly.executor.outcome import ChildExit, Outcome, RunReport
from dayfly.executor.runner import LONGEST_WAIT_SECONDS
from dayfly.executor.terms import Terms

logger = logging.getLogger("dayfly.executor")

#: What asks for a process of its own, among limits and terms.
_LIMITS = (
    "timeout_seconds",
    "soft_timeout_seconds",
    "memory_bytes",
    "data_bytes",
    "cpu_seconds",
    "nice",
)
_TERMS = (
    "workdir",
    "before_fork",
    "after_fork",
    "before_calls",
    "before_exit",
    "oom_score_adj",
    "use_cgroup",
)


class Inline:
    """Runs calls in this process; see Runner. There are no children to speak of."""

    #: More would need a thread each.
    concurrency = 1

    def __init__(self, terms: Terms) -> None:
        self.reports: list[RunReport] = []
        self.exits: deque[ChildExit] = deque()
        self.standby = 0
        # Without its working directory, which is the host's to choose.
        self._terms = replace(terms, workdir=None)
        self._current: Call | None = None
        self._interrupt: KeyboardInterrupt | None = None
        self._count = 0
        #: What waits until the report of a call is recorded, by the call's id.
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._said: set[str] = set()
        #: Readable when there may be a call to run, or a report to take; None when closed.
        self._event_fd: int | None = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        logger.warning(
            "Calls run in this process itself (launcher=inline), one at a time: nothing is isolated,"
            " no limit acts, and no output is captured. Take it for debugging and tests only."
        )
        self._say_without_effect(_that_differ(_TERMS, terms, Terms()))

    @property
    def running(self) -> int:
        """1 for whoever asks from within a call, or from a signal handler."""
        return int(self._current is not None)

    @property
    def free_slots(self) -> int:
        """One, unless a call runs, or a report is still to be taken."""
        return int(self._current is None and not self.reports)

    @property
    def child_pids(self) -> list[int]:
        """There are none."""
        return []

    @property
    def all_pids(self) -> list[int]:
        """There are none."""
        return []

    @property
    def expects_children(self) -> bool:
        """None are on their way."""
        return False

    @property
    def is_empty(self) -> bool:
        """No child is left."""
        return True

    def is_ready(self, *, waiting: int) -> bool:
        """Nothing has to be there first."""
        return True

    def start(self, call: Call) -> None:
        """
        Run *call* to its end.

        Raises:
            KeyboardInterrupt: somebody typed Ctrl-C. The report is among `reports` all the same.
        """
        self._current = call
        dispatched_ns = monotonic_ns()
        try:
            self._run(call, dispatched_ns)
        except KeyboardInterrupt as error:
            if all(report.call_id != call.call_id for report in self.reports):
                # It came while figures were read, beside the call.
                failure = child.describe(error)
                self.reports.append(
                    reports.of_interrupted(
                        call, failure, index=self._count, dispatched_ns=dispatched_ns
                    )
                )
            raise
        finally:
            self._current = self._interrupt = None
            self.wake()  # there may be another

    def shares(self) -> list[Share]:
        """Nothing runs beside the call that is to be started."""
        return []

    def wait(self, timeout: float | None, *, waiting: int = 0) -> None:
        """
        Wait up to *timeout* seconds for `wake`, which here only a signal handler can call.

        Raises:
            ExecutorBusy: asked by a call that this executor runs: nothing could ever come.
        """
        if self._current is not None:
            message = (
                f"{self._current.title or 'The call'} polls the executor that runs it inline: its own"
                " report cannot come before it has ended. Use another executor within calls."
            )
            raise ExecutorBusy(message)
        if timeout != 0:
            poll = select.poll()
            poll.register(self.fileno(), select.POLLIN)
            poll.poll(None if timeout is None else min(timeout, LONGEST_WAIT_SECONDS) * 1000)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fileno())

    def next_event(self, *, waiting: int, has_work: bool) -> float | None:
        """A call that waits is due at once; nothing else ever is."""
        return 0.0 if waiting else None

    def fileno(self) -> int:
        """Return a descriptor that is readable when there may be a call to run, or a report to take."""
        return -1 if self._event_fd is None else self._event_fd

    def warm_up(self, *, freeze: bool, huge_pages: bool, immortal: bool) -> None:
        """There will be no fork to get ready for."""

    def wake(self) -> None:
        """Make the descriptor readable."""
        if self._event_fd is not None:  # a call may have closed its executor
            os.eventfd_write(self._event_fd, 1)

    def keep_ready(self, *, waiting: int, has_work: bool) -> None:
        """There is nothing to keep."""

    def dismiss_standby(self) -> None:
        """There is nobody to let go."""

    def say_recorded(self, call_ids: Iterable[str], *, stands: bool) -> None:
        """Run what waited for the record of *call_ids*."""
        for call_id in call_ids:
            callbacks = self._waiting.pop(call_id, [])
            for callback in callbacks if stands else ():
                try:
                    callback()
                except KeyboardInterrupt:
                    raise
                except BaseException:  # noqa: BLE001 - the run is recorded; it cannot fail any more
                    traceback.print_exc()

    def end(self, call_id: str, why: Outcome, *, grace_seconds: float) -> bool:
        """A call that runs cannot be stopped from within its own process."""
        return False

    def stop(self, *, grace_seconds: float) -> None:
        """A call that runs cannot be stopped from within its own process."""

    def output_of(self, call_id: str) -> bytes | None:
        """Output goes where the host's goes."""
        return None

    def renew(self) -> None:
        """What is loaded stays so."""

    def close(self, *, leave_seconds: float) -> None:
        """Close the descriptor."""
        if self._event_fd is not None:
            os.close(self._event_fd)
            self._event_fd = None

    def _run(self, call: Call, dispatched_ns: int) -> None:
        self._count += 1
        limits = call.limits or self._terms.limits
        self._say_without_effect(_that_differ(_LIMITS, limits, NO_LIMITS))
        index, pid = self._count, os.getpid()
        peak_before = memory.peak_bytes(resource.getrusage(resource.RUSAGE_SELF))
        # Those of a call that runs this executor in turn are not ours.
        callbacks_of_others = child.take_callbacks()
        try:
            head, value = child.run(
                call.order(), call.payload, self._terms, None, self._noting, memory.peak_bytes
            )
            if callbacks := child.take_callbacks():
                self._waiting[call.call_id] = callbacks
        finally:
            for callback in callbacks_of_others:
                child.when_recorded(callback)
        if os.getpid() != pid:
            # The call forked, and this is the copy, come back from it: it has no host to go on with.
            farewell.leave(())
        # The high-water mark is the host's, and is not reset: it tells of this call if it rose.
        if head["peak_rss_bytes"] <= peak_before:
            head["peak_rss_bytes"] = None
        self.reports.append(
            reports.of_inline(call, head, value, index=index, dispatched_ns=dispatched_ns)
        )
        if self._interrupt is not None:
            raise self._interrupt

    def _noting(self, work: Callable[[], bytes]) -> bytes:
        """Call *work*, and remember Ctrl-C, which the report tells of, too."""
        try:
            return work()
        except KeyboardInterrupt as error:
            self._interrupt = error
            raise

    def _say_without_effect(self, names: list[str]) -> None:
        """Say each of *names* once, not with each call."""
        new = [name for name in names if name not in self._said]
        if new:
            self._said.update(new)
            logger.warning(
                "Without effect, as calls run in this process itself: %s", ", ".join(new)
            )


def _that_differ(names: tuple[str, ...], asked: Any, default: Any) -> list[str]:
    return [name for name in names if getattr(asked, name) != getattr(default, name)]
