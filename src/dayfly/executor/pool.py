"""
Parent side: the face for code that uses `concurrent.futures`.

    with IsolatedExecutor(max_workers=4, time_limit=60) as pool:
        future = pool.submit(work, 42)
        print(future.result(), future.report.peak_rss_bytes)

It keeps what `ProcessPoolExecutor` promises. Beyond that, each call has a child of its own by
default; one that dies fails its own call only, and says why; a running call can be cancelled.
"""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as FuturesExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

from dayfly.executor import pool_thread, results
from dayfly.executor.call import Call, name_of
from dayfly.executor.errors import CallNotSendable, ExecutorClosed
from dayfly.executor.feeder import check_count, check_launcher, make_feeder, workers
from dayfly.executor.future import IsolatedFuture
from dayfly.executor.initializer import Initializer, run_initialized
from dayfly.executor.limits import Limits
from dayfly.executor.pool_thread import PoolState
from dayfly.executor.terms import Terms
from dayfly.executor.wire import MAX_BODY_BYTES

P = ParamSpec("P")
T = TypeVar("T")

#: What a start method of multiprocessing is called here.
_LAUNCHERS = {"fork": "fork", "forkserver": "template", "spawn": "spawn"}


class StartContext(Protocol):
    """A context of multiprocessing: only its start method is asked for."""

    def get_start_method(self, allow_none: bool = ...) -> str | None:
        """Return "fork", "forkserver" or "spawn"."""


class IsolatedExecutor(FuturesExecutor):
    """A `concurrent.futures.Executor` whose calls run in children that can be trusted to die."""

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: StartContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
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
        Make a pool; its first child comes with its first call.

        *max_workers* calls run at a time; by default, as many as this process may use CPUs.
        A child serves *max_tasks_per_child* calls, None for no limit.
        *launcher* says how children come to be: "fork", "template" or "spawn". Of *mp_context*
        the start method is taken for it, where it is not given.
        *limits* hold for each call, those of *terms* where none are given; *time_limit* in seconds and
        *memory_limit* in bytes are short for the two most used. `submit_with` sets others for one call.
        *standby* children are kept ready beyond those that run, also while nothing waits.
        *terms* hold for every child. What *initializer* raises breaks the pool.

        Raises:
            ValueError, TypeError: an argument is not what it should be.
            CannotStart: with "template" or "spawn", *initializer* or another hook cannot be pickled.
        """
        self._max_workers = workers(max_workers)
        check_count(max_tasks_per_child)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if launcher is None and mp_context is not None:
            launcher = _LAUNCHERS[str(mp_context.get_start_method(allow_none=False))]
        terms = terms or Terms(title="dayfly: pool child", max_value_bytes=MAX_BODY_BYTES)
        self._limits = results.make_limits(
            limits or terms.limits, time_limit=time_limit, memory_limit=memory_limit
        )
        self._is_initialized = initializer is not None
        if initializer is not None:
            hook = Initializer(initializer, tuple(initargs))
            terms = replace(terms, before_calls=(*terms.before_calls, hook))
        check_launcher(launcher, terms)
        self._make = partial(
            make_feeder,
            concurrency=self._max_workers,
            calls_per_child=max_tasks_per_child,
            standby=standby,
            launcher=launcher,
            terms=terms,
        )
        self._state = PoolState()
        self._thread: threading.Thread | None = None
        # Not at exit: pool_thread minds that, and lets the calls be finished first.
        weakref.finalize(self, self._state.drop).atexit = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> IsolatedFuture[T]:
        """
        Have `fn(*args, **kwargs)` called in a child; return its future.

        What cannot be pickled fails the future, as in the standard library.

        Raises:
            ExecutorClosed: a RuntimeError; the pool is shut down.
            PoolBroken: a BrokenProcessPool; its initializer failed.
        """
        return self._submit(fn, args, kwargs, self._limits)

    def submit_with(
        self, limits: Limits, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> IsolatedFuture[T]:
        """Do as `submit`, under *limits* in place of the pool's."""
        return self._submit(fn, args, kwargs, limits)

    if sys.version_info >= (3, 14):

        def map(
            self,
            fn: Callable[..., T],
            *iterables: Iterable[Any],
            timeout: float | None = None,
            chunksize: int = 1,
            buffersize: int | None = None,
        ) -> Iterator[T]:
            """
            Call *fn* on what the iterables yield; yield the values in their order.

            As in the standard library: *chunksize* items make one call, which one child runs;
            at most *buffersize* calls are ahead of what was taken. Leaving the iterator early
            takes back what waits; calls that run are finished.
            """
            chunks = _chunks(chunksize, iterables)
            found = super().map(_Chunk(fn), chunks, timeout=timeout, buffersize=buffersize)
            return _one_by_one(found)

    else:

        def map(
            self,
            fn: Callable[..., T],
            *iterables: Iterable[Any],
            timeout: float | None = None,
            chunksize: int = 1,
        ) -> Iterator[T]:
            """
            Call *fn* on what the iterables yield; yield the values in their order.

            As in the standard library: *chunksize* items make one call, which one child runs.
            Leaving the iterator early takes back what waits; calls that run are finished.
            """
            chunks = _chunks(chunksize, iterables)
            return _one_by_one(super().map(_Chunk(fn), chunks, timeout=timeout))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """
        Take no more calls; with *wait*, return when all are done and no child is left.

        With *cancel_futures* the calls that have not begun are cancelled. Safe to call twice,
        from any thread, and from a callback of a future.
        """
        state = self._state
        if not state.is_here:
            return
        with state.lock:
            if cancel_futures:
                state.cancels_pending = True
            state.shut()
            thread = self._thread
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def terminate_workers(self) -> None:
        """Shut down, cancel what waits, and end what runs: TERM, then KILL after the grace of the limits."""
        self._end_all(self._limits.grace_seconds)

    def kill_workers(self) -> None:
        """Shut down, cancel what waits, and kill what runs."""
        self._end_all(0.0)

    def _end_all(self, grace_seconds: float) -> None:
        self.shutdown(wait=False, cancel_futures=True)
        self._state.order_end(
            None, grace_seconds
        )  # last: what waits must not start in a slot that it frees

    def _submit(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], limits: Limits
    ) -> IsolatedFuture[T]:
        state = self._state
        if not state.is_here:
            raise ExecutorClosed(
                "This pool belongs to the process that this one was forked from: make one of its own here."
            )
        with state.lock:
            state.check()
        call, refusal = self._call(fn, args, kwargs, limits)
        future: IsolatedFuture[T] = IsolatedFuture(
            partial(state.order_end, call.call_id, limits.grace_seconds),
            is_spared=isinstance(fn, _Chunk),
        )
        if refusal is not None:
            future.refuse(refusal)
            return future
        with state.lock:
            state.check()  # again: pickling may have taken a while
            if self._thread is None:
                self._thread = pool_thread.start(state, self._make)
            state.add(future, call)
        return future

    def _call(
        self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], limits: Limits
    ) -> tuple[Call, CallNotSendable | None]:
        title = name_of(fn.function if isinstance(fn, _Chunk) else fn)
        if self._is_initialized:
            args, fn = (fn, *args), run_initialized
        try:
            return results.make_call((fn, args, kwargs), limits=limits, title=title), None
        except CallNotSendable as error:
            return Call(title=title), error


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Calls its function on each of the items of a chunk: what `map` submits."""

    function: Callable[..., Any]

    def __call__(self, items: tuple[tuple[Any, ...], ...]) -> list[Any]:
        return [self.function(*arguments) for arguments in items]


def _chunks(size: int, iterables: tuple[Iterable[Any], ...]) -> Iterator[tuple[Any, ...]]:
    # Not a generator: what is wrong is said at once.
    if size < 1:
        raise ValueError("chunksize must be >= 1.")
    items = zip(*iterables, strict=False)
    return iter(lambda: tuple(itertools.islice(items, size)), ())


def _one_by_one(chunks: Iterator[list[T]]) -> Iterator[T]:
    """Yield the items; keep none that was yielded."""
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()
