"""
Run work in processes that can be trusted to die. No Django in here.

Parent side: executor -> supervisor -> fork -> (child side) child -> tidy, farewell.

The faces of `concurrent.futures` and asyncio are imported when they are first asked for: the
loop face, which the worker uses, pays nothing for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dayfly.executor.call import Call, load_value
from dayfly.executor.child import when_recorded
from dayfly.executor.errors import (
    CallNotSendable,
    CallRaised,
    CannotStart,
    ExecutorClosed,
    ExecutorError,
    RemoteTraceback,
    SoftTimeLimitExceeded,
    WorkdirGone,
)
from dayfly.executor.executor import Executor, run_call
from dayfly.executor.limits import Limits
from dayfly.executor.outcome import (
    Cause,
    ChildExit,
    Failure,
    MemoryReading,
    Outcome,
    RunReport,
    Usage,
)
from dayfly.executor.recycle import AfterAge, AfterCalls, AfterGrowth, AnyOf, RecyclePolicy
from dayfly.executor.source import Source
from dayfly.executor.terms import Terms

if TYPE_CHECKING:
    from dayfly.executor.aio import AsyncExecutor
    from dayfly.executor.call_errors import (
        CallLost,
        CallOverMemory,
        CallStopped,
        CallTimedOut,
        ChildDied,
        InitializerFailed,
        PoolBroken,
    )
    from dayfly.executor.future import IsolatedFuture
    from dayfly.executor.pool import IsolatedExecutor
    from dayfly.executor.single import isolated, run

_LATE = {
    "AsyncExecutor": "aio",
    "CallLost": "call_errors",
    "CallOverMemory": "call_errors",
    "CallStopped": "call_errors",
    "CallTimedOut": "call_errors",
    "ChildDied": "call_errors",
    "InitializerFailed": "call_errors",
    "IsolatedExecutor": "pool",
    "IsolatedFuture": "future",
    "PoolBroken": "call_errors",
    "isolated": "single",
    "run": "single",
}

__all__ = [
    "AfterAge",
    "AfterCalls",
    "AfterGrowth",
    "AnyOf",
    "AsyncExecutor",
    "Call",
    "CallLost",
    "CallNotSendable",
    "CallOverMemory",
    "CallRaised",
    "CallStopped",
    "CallTimedOut",
    "CannotStart",
    "Cause",
    "ChildDied",
    "ChildExit",
    "Executor",
    "ExecutorClosed",
    "ExecutorError",
    "Failure",
    "InitializerFailed",
    "IsolatedExecutor",
    "IsolatedFuture",
    "Limits",
    "MemoryReading",
    "Outcome",
    "PoolBroken",
    "RecyclePolicy",
    "RemoteTraceback",
    "RunReport",
    "SoftTimeLimitExceeded",
    "Source",
    "Terms",
    "Usage",
    "WorkdirGone",
    "isolated",
    "load_value",
    "run",
    "run_call",
    "when_recorded",
]


def __getattr__(name: str) -> Any:
    """Import a face, or what it raises, when it is first asked for."""
    if name not in _LATE:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
    globals()[name] = value
    return value
