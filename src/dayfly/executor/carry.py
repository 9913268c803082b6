"""
Both sides: plain data. How functions, values and exceptions cross between a parent and its child.

Down: a function and its arguments, pickled, or inherited by the fork.
Up: the value, pickled, or the exception, pickled next to its text. What cannot cross is
an error of that one call.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable
from typing import Any

from dayfly.executor.errors import CallNotSendable, CallRaised, RemoteTraceback, message_of
from dayfly.executor.outcome import Failure

#: A function with its arguments.
Order = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

#: Calls that a child finds in the memory it has of its parent, by id: see `run`.
inherited: dict[str, Order] = {}


def pack_call(name: str, order: Order) -> bytes:
    """
    Pickle *order*: by `pickle`, and what that refuses (lambdas, closures) by cloudpickle, if installed.

    Raises:
        CallNotSendable: neither can.
    """
    try:
        return pickle.dumps(order, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - an argument's own __reduce__ may raise anything
        refusal = error
    try:
        # By its name, as it is optional, and takes 30 ms to import.
        by_value = importlib.import_module("cloudpickle")
    except ImportError:
        hint = "Lambdas and closures can be sent once cloudpickle is installed, or by `run`, which forks."
    else:
        try:
            data: bytes = by_value.dumps(order, pickle.HIGHEST_PROTOCOL)
            return data
        except Exception:  # noqa: BLE001 - what it says is no clearer than what pickle said
            hint = "cloudpickle, which carries lambdas and closures, cannot pickle it either."
    message = (
        f"The call of {name} cannot be sent to a child: {message_of(refusal)}. "
        f"Use a function at module level and arguments that can be pickled. {hint}"
    )
    raise CallNotSendable(message) from refusal


def unpack_call(data: bytes) -> Order:
    """
    Unpickle a call in the child.

    Raises:
        CallNotSendable: the function, or a class, is not to be found here.
        Exception: what an argument raises that cannot be unpickled.
    """
    try:
        order: Order = pickle.loads(data)
    except (AttributeError, ImportError) as error:
        message = (
            f"The call cannot be loaded in the child: {type(error).__name__}: {error}. Children know "
            "what could be imported, and what was defined, when the first of them was started."
        )
        raise CallNotSendable(message) from error
    return order


def pack_error(error: BaseException, max_bytes: int) -> bytes:
    """Pickle *error*; nothing where that fails, or takes more than *max_bytes*: its text crosses anyway."""
    try:
        data = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
    except BaseException:  # noqa: BLE001 - an exception's own __reduce__ may raise anything
        return b""
    return data if len(data) <= max_bytes else b""


def load_error(failure: Failure, pickled: bytes | None) -> BaseException:
    """
    Return the exception that a call raised, its remote traceback as its cause. Never raises.

    One that cannot be pickled or unpickled becomes a `CallRaised`, made of its text.
    Only for children that you trust: unpickling runs code of the sender's choice.
    """
    why = "it cannot be pickled"
    error: BaseException | None = None
    if pickled:
        try:
            found = pickle.loads(pickled)
        except BaseException as trouble:  # noqa: BLE001 - an exception's own __setstate__ may raise anything
            why = f"it cannot be unpickled: {type(trouble).__name__}: {message_of(trouble)}"
        else:
            if isinstance(found, BaseException):
                error = found
            else:
                why = f"its pickle holds a {type(found).__qualname__}"
    if error is None:
        message = (
            f"The call raised {failure.exception_class_path}: {failure.message} "
            f"(the exception itself did not cross, as {why})"
        )
        error = CallRaised(message)
    # Past a __setattr__ of its own: that of a frozen dataclass refuses.
    BaseException.__setattr__(error, "__cause__", RemoteTraceback(failure.traceback))
    return error
