"""
Parent side: the thread behind a pool. It alone touches the loop executor, and never the pool.

    pool (any thread)                 PoolState                  this thread
      submit  ->  pending, wake    ->                ->  feeder.turn -> loop executor
      cancel  ->  orders, wake     ->                ->  feeder.end
      shutdown, or nobody holds the pool any more    ->  drain, close, leave

The thread is a daemon's, and is joined when the interpreter exits: whoever presses Ctrl-C
then need not wait, and the kernel kills the children.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from dayfly.executor.call import Call
from dayfly.executor.call_errors import INITIALIZER_FAILED, InitializerFailed, PoolBroken
from dayfly.executor.errors import ExecutorClosed, message_of
from dayfly.executor.feeder import Client, Feeder
from dayfly.executor.future import IsolatedFuture
from dayfly.executor.initializer import RAISED_PATH

logger = logging.getLogger("dayfly.executor")

#: Makes the loop executor of a pool, and its feeder.
Maker = Callable[[], Feeder]


class PoolState:
    """
    What a pool and its thread share. Knows nothing of the pool, so that this can be collected.

    The lock may be taken again by the same thread: a collection, or a signal handler, can
    run anywhere, and drop a pool or submit to it.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.pending: deque[tuple[Client, Call]] = deque()
        #: Calls to end, None for whatever runs, with the grace that they have.
        self.orders: deque[tuple[str | None, float]] = deque()
        self.is_shut = False
        self.cancels_pending = False
        self.broken: PoolBroken | None = None
        self.pid = os.getpid()
        #: Readable when the thread should look; there is one while there is a thread.
        self._wake_pipe: tuple[int, int] | None = None
        self._is_awake = False

    def open(self) -> int:
        """
        Open the descriptor that is readable when the thread should look, and return it.

        Raises:
            OSError: no descriptors are left.
        """
        if self._wake_pipe is None:
            self._wake_pipe = os.pipe()
        return self._wake_pipe[0]

    def check(self) -> None:
        """
        Raise what keeps the pool from taking a call. To be called under the lock.

        Raises:
            PoolBroken: the initializer failed, or the thread did.
            ExecutorClosed: it is shut down, or the interpreter is.
        """
        if self.broken is not None:
            raise type(self.broken)(*self.broken.args)
        if self.is_shut:
            raise ExecutorClosed("This pool was shut down and takes no more calls.")
        if _is_exiting:
            raise ExecutorClosed("The interpreter is shutting down: the pool takes no more calls.")

    def add(self, future: IsolatedFuture[Any], call: Call) -> None:
        """Queue a call."""
        self.pending.append((future, call))
        self.wake()

    def order_end(self, call_id: str | None, grace_seconds: float) -> None:
        """Have a running call ended; all of them for None."""
        self.orders.append((call_id, grace_seconds))
        self.wake()

    def shut(self) -> None:
        """Take no more calls; the thread leaves when it has done what there is."""
        if self.is_here:
            with self.lock:
                self.is_shut = True
                self.wake()

    def drop(self) -> None:
        """
        Do as `shut`, for a pool that was collected: in whatever thread, whatever locks it holds.

        Who holds the lock now wakes the thread, or is the thread, and it looks at `is_shut` after.
        """
        self.is_shut = True
        if self.lock.acquire(blocking=False):
            try:
                self.wake()
            finally:
                self.lock.release()

    @property
    def is_here(self) -> bool:
        """Whether this is the process that made the pool, and not a forked copy of it, without its thread."""
        return self.pid == os.getpid()

    def wake(self) -> None:
        """Have the thread look."""
        if not self.is_here:
            return  # and the lock may be held for ever
        with self.lock:
            if self._wake_pipe is not None and not self._is_awake:
                self._is_awake = True
                os.write(self._wake_pipe[1], b"\0")

    def fall_asleep(self) -> None:
        """Forget the wakes so far. What was added before them is to be looked at afterwards."""
        with self.lock:
            if self._wake_pipe is not None and self._is_awake:
                self._is_awake = False
                os.read(self._wake_pipe[0], 1)

    def close(self) -> None:
        """Close the descriptors."""
        with self.lock:
            for fd in self._wake_pipe or ():
                os.close(fd)
            self._wake_pipe = None


def start(state: PoolState, make: Maker) -> threading.Thread:
    """
    Start the thread of a pool.

    From the main thread the template is forked first, so that it is a copy of a process that
    has no threads yet (but those of others). Not from another: the kernel ends the template
    with the thread that forked it, which may be short-lived.

    Raises:
        OSError: no descriptor, thread or process is left.
    """
    state.open()
    feeder = None
    try:
        if threading.current_thread() is threading.main_thread():
            feeder = make()
            feeder.executor.standby = 1
            feeder.executor.warm_up(freeze=False)
        thread = threading.Thread(
            target=_live, args=(state, make, feeder), name="dayfly-pool", daemon=True
        )
        thread.start()
    except BaseException:
        if feeder is not None:
            feeder.executor.close()
        state.close()  # nobody else would: there is no thread
        raise
    _threads[thread] = state
    return thread


def _live(state: PoolState, make: Maker, feeder: Feeder | None) -> None:
    try:
        feeder = feeder or make()
        feeder.pending = state.pending
        _serve(state, feeder)
    except BaseException as error:  # whatever it is, no caller may wait for ever
        logger.exception("The thread of a pool failed.")
        message = (
            f"The thread of this pool failed: {type(error).__name__}: {message_of(error)}."
            " Make a new pool."
        )
        _break(state, feeder, PoolBroken(message))
    finally:
        state.is_shut = True
        try:
            if feeder is not None:
                feeder.executor.close()
        finally:
            state.close()
            _threads.pop(threading.current_thread(), None)


def _serve(state: PoolState, feeder: Feeder) -> None:
    poll = select.poll()
    poll.register(state.open(), select.POLLIN)
    poll.register(feeder.executor.fileno(), select.POLLIN)
    while not (state.is_shut and feeder.is_idle):
        seconds = feeder.executor.seconds_to_next_event()
        poll.poll(None if seconds is None else seconds * 1000)
        state.fall_asleep()
        _obey(state, feeder)
        for failure in feeder.turn():
            if failure.exception_class_path == RAISED_PATH and state.broken is None:
                logger.critical("The initializer of a pool failed:\n%s", failure.message)
                _break(state, feeder, InitializerFailed(INITIALIZER_FAILED))


def _obey(state: PoolState, feeder: Feeder) -> None:
    if state.cancels_pending:
        while state.pending:
            state.pending.popleft()[0].take_back()
    while state.orders:
        call_id, grace_seconds = state.orders.popleft()
        if call_id is None:
            feeder.stop(grace_seconds=grace_seconds)
        else:
            feeder.end(call_id, grace_seconds=grace_seconds)


def _break(state: PoolState, feeder: Feeder | None, error: PoolBroken) -> None:
    """Fail all that waits or runs, and end it."""
    with state.lock:
        state.broken = error
        state.is_shut = True
    clients: list[Client] = feeder.clients if feeder is not None else []
    while state.pending:
        clients.append(state.pending.popleft()[0])
    for client in clients:
        client.refuse(type(error)(*error.args))
    if feeder is not None:
        feeder.stop(grace_seconds=0.0)


#: The threads of all pools that were not shut down, for the end of the interpreter.
_threads: dict[threading.Thread, PoolState] = {}
_is_exiting = False


def _at_exit() -> None:
    """Let all pools do what there is, as the standard library does; then nothing is left behind."""
    global _is_exiting
    _is_exiting = True
    threads = dict(_threads)
    for state in threads.values():
        state.shut()
    for thread in threads:
        thread.join()


# Before the interpreter joins threads, and so before atexit: what Executor.map and callbacks
# need is whole then. The standard library's pools use the same door.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
