"""
Parent side: one function, in a child of its own.

`run` forks a child from the calling thread as it is now. The child has the function and its
arguments already, in the memory that it shares with its parent: nothing but the value is
pickled, so that lambdas, closures and arguments of any size and kind can be used.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, overload

from dayfly.executor import carry, results
from dayfly.executor.call import INHERITED, Call, name_of
from dayfly.executor.executor import run_call
from dayfly.executor.limits import Limits
from dayfly.executor.terms import Terms
from dayfly.executor.wire import MAX_BODY_BYTES

P = ParamSpec("P")
T = TypeVar("T")

_TERMS = Terms(max_value_bytes=MAX_BODY_BYTES)


def run(
    function: Callable[..., T],
    /,
    *args: Any,
    limits: Limits | None = None,
    terms: Terms | None = None,
    **kwargs: Any,
) -> T:
    """
    Call *function* in a child of its own and return its value.

    *limits* are those of *terms* where none are given. Neither is passed on: for a function with
    arguments of these names use `functools.partial`. What it prints is dropped: `run_call` returns the whole report.

    Raises:
        Exception: what the function raised, its remote traceback as the cause.
        CallLost: it did not come to an end: ChildDied, CallTimedOut, CallOverMemory.
        CallNotSendable: the value cannot be pickled.
    """
    call = Call(codec=INHERITED, title=name_of(function), limits=limits)
    carry.inherited[call.call_id] = function, args, kwargs
    try:
        report = run_call(call, terms=terms or _TERMS)
    finally:
        del carry.inherited[call.call_id]
    value, error = results.unpack(report)
    if error is not None:
        try:
            raise error
        finally:
            del error  # else this frame and its traceback would hold each other
    return value  # type: ignore[no-any-return]  # what the function returned


class IsolatedFunction(Generic[P, T]):
    """
    A function that runs in a child of its own each time it is called: see `isolated`.

    Pickled by its name, as functions are. `__wrapped__` is the function itself.
    """

    __wrapped__: Callable[P, T]

    def __init__(self, function: Callable[P, T], limits: Limits) -> None:
        functools.update_wrapper(self, function)
        self.limits = limits

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function in a child of its own: see `run`."""
        # As a partial: its arguments may be called `limits`, too.
        return run(functools.partial(self.__wrapped__, *args, **kwargs), limits=self.limits)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind a method, as functions do."""
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self) -> str:
        # The name stands for this object, not for the function in it: whoever unpickles it, a
        # child for instance, finds what he would import.
        return self.__qualname__  # type: ignore[attr-defined,no-any-return]  # of the function

    def __repr__(self) -> str:
        return f"<isolated {self.__wrapped__!r}>"


@overload
def isolated(function: Callable[P, T], /) -> IsolatedFunction[P, T]: ...


@overload
def isolated(
    *,
    limits: Limits | None = ...,
    time_limit: float | None = ...,
    memory_limit: int | None = ...,
) -> Callable[[Callable[P, T]], IsolatedFunction[P, T]]: ...


def isolated(
    function: Callable[P, T] | None = None,
    /,
    *,
    limits: Limits | None = None,
    time_limit: float | None = None,
    memory_limit: int | None = None,
) -> IsolatedFunction[P, T] | Callable[[Callable[P, T]], IsolatedFunction[P, T]]:
    """
    Make a function run in a child of its own each time it is called.

    As `@isolated`, or with limits: `@isolated(time_limit=60)`, seconds; *memory_limit*, bytes.

    Raises:
        TypeError: it is a coroutine or a generator function, whose call only makes an object.
    """
    set_limits = results.make_limits(limits, time_limit=time_limit, memory_limit=memory_limit)

    def decorate(function: Callable[P, T]) -> IsolatedFunction[P, T]:
        makes_object = (
            inspect.iscoroutinefunction,
            inspect.isgeneratorfunction,
            inspect.isasyncgenfunction,
        )
        if any(ask(function) for ask in makes_object):
            message = (
                f"{name_of(function)} is a coroutine or a generator function: its call does nothing but "
                "make an object. Isolate a plain function; await it by AsyncExecutor."
            )
            raise TypeError(message)
        return IsolatedFunction(function, set_limits)

    return decorate if function is None else decorate(function)
