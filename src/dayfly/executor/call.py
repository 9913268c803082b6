"""
Both sides: plain data. What a child is asked to run.

Two ways to carry a call. `Call.of(function, *args)` pickles: for daemons that call
their own functions. `Call(target=..., payload=...)` hands bytes to a function named
by its path and takes bytes back: for callers (the worker) that trust nobody's pickles.
"""

from __future__ import annotations

import functools
import importlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from dayfly.executor.errors import CallNotSendable, message_of
from dayfly.executor.limits import Limits
from dayfly.executor.outcome import RunReport

PICKLED = "pickle"
RAW = "raw"
#: The child has the function and its arguments already, in what it inherited of its parent.
INHERITED = "inherited"

#: What process lists show of a title.
MAX_TITLE_CHARS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call. *title* is shown in process lists: never put arguments there."""

    call_id: str = field(default_factory=lambda: uuid4().hex)
    #: Dotted path of a function; empty for a pickled call, which names its own.
    target: str = ""
    payload: bytes = b""
    codec: str = RAW
    title: str = ""
    #: None: those of the executor (Terms.limits). Else these, and none of the executor's.
    limits: Limits | None = None
    #: What it will hold beyond what a child has, as far as its caller knows; counts against
    #: the budget of the executor. 0: nothing is known.
    memory_estimate_bytes: int = 0
    #: Read USS and PSS too, at about 0.1 ms for each 10 MB of the child, twice.
    memory_in_detail: bool = True

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        *args: Any,
        limits: Limits | None = None,
        **kwargs: Any,
    ) -> Call:
        """
        Make a call of *function* with pickled arguments.

        Raises:
            CallNotSendable: the function or an argument cannot be pickled (a lambda, an open file).
        """
        name = name_of(function)
        try:
            payload = pickle.dumps((function, args, kwargs), pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # an argument's own __reduce__ may raise anything
            message = (
                f"The call of {name} cannot be sent to a child: {message_of(error)}. "
                "Use a function at module level and arguments that can be pickled."
            )
            raise CallNotSendable(message) from error
        return cls(payload=payload, codec=PICKLED, title=name, limits=limits)

    def order(
        self,
        *,
        is_last: bool = False,
        soft_ns: int | None = None,
        data_bytes: int | None = None,
        nice: int = 0,
    ) -> dict[str, Any]:
        """Return what is said of the call to whom runs it: all but its payload."""
        return {
            "id": self.call_id,
            "target": self.target,
            "codec": self.codec,
            "title": self.title[:MAX_TITLE_CHARS],
            "memory_in_detail": self.memory_in_detail,
            "is_last": is_last,
            "soft_ns": soft_ns,
            "data_bytes": data_bytes,
            "nice": nice,
        }


def name_of(function: Callable[..., Any]) -> str:
    """Name *function* without its arguments: the repr of a partial, or of an object, may show some."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__ or 'builtins'}.{named.__qualname__}"


def load_value(report: RunReport) -> Any:
    """
    Unpickle what a `Call.of` returned.

    Only for children that you trust: unpickling runs code of the sender's choice.
    """
    return None if report.value is None else pickle.loads(report.value)


def resolve(path: str) -> Callable[..., Any]:
    """
    Import the object at dotted *path*, "package.module.function".

    Raises:
        ImportError: there is no such module or attribute.
    """
    module_path, _, name = path.rpartition(".")
    if not module_path:
        message = f"{path!r} is not a dotted path of a function"
        raise ImportError(message)
    module = importlib.import_module(module_path)
    try:
        return getattr(module, name)  # type: ignore[no-any-return]
    except AttributeError as error:
        message = f"module {module_path!r} has no attribute {name!r}"
        raise ImportError(message) from error
