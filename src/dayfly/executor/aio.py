"""
Parent side: the face for asyncio.

    async with AsyncExecutor(max_workers=4, time_limit=60) as executor:
        value = await executor.run(work, 42)

No thread: the event loop watches the executor's descriptor. Cancelling the task that awaits a
call ends its child.
"""

from __future__ import annotations

import asyncio
import os
import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

from dayfly.executor import results
from dayfly.executor.call import Call
from dayfly.executor.call_errors import CallLost, CallStopped, PoolBroken
from dayfly.executor.errors import CallRaised, ExecutorClosed, message_of
from dayfly.executor.executor import Executor
from dayfly.executor.feeder import Feeder, check_count, check_launcher, make_feeder, workers
from dayfly.executor.limits import Limits
from dayfly.executor.outcome import RunReport
from dayfly.executor.terms import Terms
from dayfly.executor.wire import MAX_BODY_BYTES

T = TypeVar("T")


class AsyncExecutor:
    """Runs functions in children for the tasks of one event loop."""

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        max_tasks_per_child: int | None = 1,
        launcher: str | None = None,
        limits: Limits | None = None,
        time_limit: float | None = None,
        memory_limit: int | None = None,
        standby: int = 0,
        terms: Terms | None = None,
    ) -> None:
        """
        Make an executor for the loop that first runs a call; arguments as for `IsolatedExecutor`.

        Raises:
            ValueError, TypeError: an argument is not what it should be.
            CannotStart: with "template" or "spawn", a hook of *terms* cannot be pickled.
        """
        check_count(max_tasks_per_child)
        terms = terms or Terms(max_value_bytes=MAX_BODY_BYTES)
        check_launcher(launcher, terms)
        self._limits = results.make_limits(
            limits or terms.limits, time_limit=time_limit, memory_limit=memory_limit
        )
        self._make = partial(
            make_feeder,
            concurrency=workers(max_workers),
            calls_per_child=max_tasks_per_child,
            standby=standby,
            launcher=launcher,
            terms=replace(terms, limits=self._limits),  # for calls that bring none
        )
        self._feeder: Feeder | None = None
        self._finalizer: weakref.finalize[[Executor, int], AsyncExecutor] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_turn_asked = False
        self._is_closed = False
        #: Set by each turn, for who waits until nothing is left.
        self._turned = asyncio.Event()

    async def run(
        self, function: Callable[..., T], /, *args: Any, limits: Limits | None = None, **kwargs: Any
    ) -> T:
        """
        Call *function* in a child and return its value.

        *limits*, in place of the executor's, are not passed on: for a function with an
        argument of this name use `functools.partial`. Cancelled, this ends the call: its child
        is asked to leave (TERM), and killed after the grace of its limits; that is not waited for.

        Raises:
            Exception: what the function raised, its remote traceback as the cause.
            CallRaised: in place of SystemExit, KeyboardInterrupt or CancelledError, which here
                would end the event loop, or seem to cancel the task that awaits.
            CallLost: it did not come to an end: ChildDied, CallTimedOut, CallOverMemory.
            CallNotSendable: the function, an argument or the value cannot be pickled.
            ExecutorClosed: this executor is closed.
        """
        call = results.make_call((function, args, kwargs), limits=limits)
        report = await self.run_call(call)
        value, error = results.unpack(report)
        if error is not None and not isinstance(error, Exception):
            words = f"{type(error).__name__}: {message_of(error)}"
            harmless = CallRaised(f"The call in a child raised {words}")
            harmless.__cause__, error = error.__cause__, harmless
        if error is not None:
            try:
                raise error
            finally:
                del error  # else this frame and its traceback would hold each other
        return value  # type: ignore[no-any-return]  # what the function returned

    async def run_call(self, call: Call) -> RunReport:
        """
        Run a call and return its report, whatever became of it. Cancelling: see `run`.

        The same call may be run again, also while it runs.

        Raises:
            CallNotSendable: the payload is too large.
            ExecutorClosed: this executor is closed.
        """
        feeder = self._attached()
        # Under an id of its own: the same call may run twice at a time, or again while the child of
        # one that was cancelled still leaves, whose report is not for the new one.
        own = replace(call, call_id=uuid4().hex)
        client = _Awaited(asyncio.get_running_loop().create_future())
        feeder.pending.append((client, own))
        self._ask_turn()
        try:
            report = await client.future
        except asyncio.CancelledError:
            limits = call.limits or self._limits
            feeder.end(own.call_id, grace_seconds=limits.grace_seconds)
            self._ask_turn()  # for the deadline of the grace
            raise
        return replace(report, call_id=call.call_id)

    async def aclose(self, *, stop: bool = False) -> None:
        """
        Take no more calls, wait for those that there are, and let the children leave.

        With *stop* end them instead: `run` raises CallStopped for them. Cancelled, this kills them.
        """
        feeder, self._is_closed = self._feeder, True
        if feeder is None:
            return
        try:
            if stop:
                _refuse_waiting(
                    feeder, CallStopped("The executor was closed before this call began.")
                )
                feeder.stop(grace_seconds=self._limits.grace_seconds)
            await self._turn_until(feeder, lambda: feeder.is_idle)
            feeder.dismiss()
            await self._turn_until(feeder, lambda: feeder.executor.is_empty)
        finally:
            self._detach(feeder)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the calls; after an exception, end them."""
        await self.aclose(stop=kind is not None)

    def _attached(self) -> Feeder:
        if self._is_closed:
            raise ExecutorClosed("This executor is closed and takes no more calls.")
        loop = asyncio.get_running_loop()
        if self._feeder is None:
            self._feeder, self._loop = self._make(), loop
            loop.add_reader(self._feeder.executor.fileno(), self._turn)
            # Of the loop executor alone: who waits for a call would keep this object alive.
            self._finalizer = weakref.finalize(
                self, _close_forgotten, self._feeder.executor, os.getpid()
            )
            self._finalizer.atexit = False  # the template ends all children then
        elif loop is not self._loop:
            raise ExecutorClosed("This executor belongs to another event loop: make one for each.")
        return self._feeder

    def _detach(self, feeder: Feeder) -> None:
        """End it all, unless that was done already: several may close at a time, or a turn may fail."""
        if self._feeder is not feeder:
            return
        assert self._loop is not None
        assert self._finalizer is not None
        self._finalizer.detach()
        self._feeder = None
        self._turned.set()
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(feeder.executor.fileno())
        _refuse(feeder, CallStopped("The executor was closed before this call was finished."))
        feeder.executor.close(leave_seconds=0.0)

    async def _turn_until(self, feeder: Feeder, is_reached: Callable[[], bool]) -> None:
        """Wait until *is_reached*, or until a failure or another `aclose` has put an end to it all."""
        self._ask_turn()  # for what was just ordered, and its deadlines; then turns come by themselves
        while self._feeder is feeder and not is_reached():
            self._turned.clear()
            await self._turned.wait()

    def _ask_turn(self) -> None:
        """Have a turn once those who are ready now have run: what they submit comes along."""
        if not self._is_turn_asked and self._loop is not None:
            self._is_turn_asked = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_turn_asked = False
        feeder, loop = self._feeder, self._loop
        if feeder is None or loop is None:
            return
        try:
            feeder.turn()
        except BaseException as error:
            # Nobody may wait for ever. The loop tells its exception handler.
            self._is_closed = True
            message = (
                f"The executor failed: {type(error).__name__}: {message_of(error)}. Make a new one."
            )
            _refuse(feeder, PoolBroken(message))
            self._detach(feeder)
            raise
        finally:
            self._turned.set()
        if self._timer is not None:
            self._timer.cancel()
        seconds = feeder.executor.seconds_to_next_event()
        self._timer = None if seconds is None else loop.call_later(seconds, self._turn)


class _Awaited:
    """A task that waits for the report of its call."""

    def __init__(self, future: asyncio.Future[RunReport]) -> None:
        self.future = future

    def begin(self) -> bool:
        """Tell whether the task still waits."""
        return not self.future.done()

    def end(self, report: RunReport) -> None:
        """Pass the report on."""
        if not self.future.done():
            self.future.set_result(report)

    def refuse(self, error: Exception) -> None:
        """Pass the reason on."""
        if not self.future.done():
            self.future.set_exception(error)

    def take_back(self) -> None:
        """Cancel the task's wait."""
        self.future.cancel()


def _close_forgotten(executor: Executor, pid: int) -> None:
    """End the children of a face that was collected before it was closed: its loop is gone."""
    if os.getpid() != pid:
        return  # a forked copy of it: the children are not ours
    executor.close(leave_seconds=0.0)
    message = "An AsyncExecutor was not closed: use `async with`, or await its aclose()."
    warnings.warn(message, ResourceWarning, stacklevel=2)


def _refuse_waiting(feeder: Feeder, error: CallLost) -> None:
    """Tell those whose calls have not begun; each gets an exception of its own, for its traceback."""
    while feeder.pending:
        feeder.pending.popleft()[0].refuse(type(error)(*error.args))


def _refuse(feeder: Feeder, error: CallLost) -> None:
    """Tell all who wait."""
    _refuse_waiting(feeder, error)
    for client in feeder.clients:
        client.refuse(type(error)(*error.args))
