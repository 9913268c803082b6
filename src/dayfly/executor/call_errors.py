"""
Both sides: plain data. The exceptions by which a call ends that neither returned nor raised.

Each carries the report of the run. Importing this costs what `concurrent.futures.process`
costs, some 15 ms: only the faces that raise these do.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool

from dayfly.executor.errors import ExecutorError, RemoteTraceback
from dayfly.executor.initializer import RAISED_PATH
from dayfly.executor.outcome import RunReport

INITIALIZER_FAILED = (
    "The initializer of this pool failed in a child; the log has its traceback. Make a new pool."
)


class CallLost(ExecutorError):
    """The base of them all."""

    #: What is known of the run; None where there was none.
    report: RunReport | None = None


class ChildDied(CallLost, BrokenProcessPool):
    """
    The child died or was killed while it ran this call. No other call is concerned.

    A `BrokenProcessPool`, so that what handles that handles this; but the pool is whole.
    """


class CallStopped(ChildDied):
    """The host ended the call, or the pool, before it was finished."""


class CallTimedOut(CallLost, TimeoutError):
    """The call ran past its time limit, and was ended."""


class CallOverMemory(CallLost, MemoryError):
    """The call held more memory than its limit, and was ended."""


class PoolBroken(CallLost, BrokenProcessPool):
    """The whole pool is of no use any more: its thread failed, for a reason that it names."""


class InitializerFailed(PoolBroken):
    """The initializer raised in a child, so the whole pool is of no use."""


#: By the outcome of the run; any other is a ChildDied.
_BY_OUTCOME: dict[str, type[CallLost]] = {
    "timed_out": CallTimedOut,
    "over_memory": CallOverMemory,
    "stopped": CallStopped,
    "cancelled": CallStopped,
}


def lost(report: RunReport) -> CallLost:
    """
    Make the exception for a run that ended without a value and without an exception of its own.

    A limit that the call met as an exception leaves its traceback as the cause.
    """
    failure = report.failure
    if failure is not None and failure.exception_class_path == RAISED_PATH:
        error: CallLost = InitializerFailed(INITIALIZER_FAILED)
        error.__cause__ = RemoteTraceback(failure.message)
    else:
        error = _BY_OUTCOME.get(report.outcome, ChildDied)(report.message)
        if failure is not None:
            error.__cause__ = RemoteTraceback(failure.traceback)
    error.report = report
    return error
