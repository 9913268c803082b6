"""Parent side: the future of a call in a pool. It can be cancelled while it runs, and has a report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from typing import TypeVar

from dayfly.executor import results
from dayfly.executor.outcome import RunReport

logger = logging.getLogger("dayfly.executor")

T = TypeVar("T")

_CALLBACK_FAILED = "A callback of a future failed."


class IsolatedFuture(Future[T]):
    """
    A future whose call runs in a child of its own.

    `cancel` ends a running call, too. The future is cancelled at once; its child is asked to
    leave (TERM), and killed after the grace of its limits. Until then it keeps its slot.
    """

    def __init__(self, stop_child: Callable[[], None], *, is_spared: bool = False) -> None:
        super().__init__()
        #: What is known of the run, without its value; None until it has ended, or if it never began.
        self.report: RunReport | None = None
        # As in the standard library, a call of `map` runs on when its iterator is left.
        self._is_spared = is_spared
        self._stop_child: Callable[[], None] | None = stop_child

    def cancel(self) -> bool:
        """
        Cancel the call, also while it runs; tell whether it is cancelled.

        A call that runs for `map` is not ended: leaving the iterator only takes back what waits.
        """
        # The states and what goes with them are those of Future.cancel and of
        # Future.set_running_or_notify_cancel, in one step: whoever waits need not wait
        # until this call's turn would have come.
        with self._condition:
            if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
                return True
            if self._state == FINISHED or (self._state == RUNNING and self._is_spared):
                return False
            stop_child = self._stop_child if self._state == RUNNING else None
            self._stop_child = None
            self._state = CANCELLED_AND_NOTIFIED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        if stop_child is not None:
            stop_child()  # first: a callback may take long, or raise SystemExit
        self._invoke_callbacks()  # type: ignore[attr-defined]  # not in typeshed
        return True

    def begin(self) -> bool:
        """Note that the call starts now; tell whether it is still wanted."""
        with self._condition:
            if self._state != PENDING:
                return False
            self._state = RUNNING
        return True

    def end(self, report: RunReport) -> None:
        """Take the report of the call."""
        self._stop_child = None
        self.report = results.without_values(report)
        if self.done():
            return  # cancelled, or refused by a pool that broke
        value, error = results.unpack(report)
        self._settle(value, error)

    def refuse(self, error: BaseException) -> None:
        """Take the reason why there is no value."""
        self._stop_child = None
        self._settle(None, error)

    def take_back(self) -> None:
        """Note that the call, which has not begun, is cancelled."""
        try:
            self.cancel()
        except BaseException:
            logger.exception(_CALLBACK_FAILED)

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        try:
            if error is None:
                self.set_result(value)  # type: ignore[arg-type]  # None is what the function returned
            else:
                self.set_exception(error)
        except InvalidStateError:
            pass  # cancelled just now
        except BaseException:
            # From a callback: Future catches an Exception, but SystemExit must not end our thread.
            logger.exception(_CALLBACK_FAILED)
        finally:
            del value, error  # a frame of this would keep them, through the error's traceback
