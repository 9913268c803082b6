"""
Parent side: between the calls of a face and the reports of the loop.

On the way down a function with its arguments and limits becomes a Call; on the way up a report
becomes a value or an exception.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

from dayfly.executor import carry
from dayfly.executor.call import PICKLED, Call, name_of
from dayfly.executor.carry import Order
from dayfly.executor.initializer import RAISED_PATH
from dayfly.executor.limits import Limits
from dayfly.executor.outcome import Outcome, RunReport


def make_call(
    order: Order, *, limits: Limits | None, title: str = "", in_detail: bool = False
) -> Call:
    """
    Make a call that is pickled: by cloudpickle, if installed, where it must be.

    Raises:
        CallNotSendable: it cannot be pickled.
    """
    title = title or name_of(order[0])
    return Call(
        payload=carry.pack_call(title, order),
        codec=PICKLED,
        title=title,
        limits=limits,
        memory_in_detail=in_detail,
    )


def make_limits(
    limits: Limits | None, *, time_limit: float | None, memory_limit: int | None
) -> Limits:
    """Return *limits*, with the two that people set most often put in where they are given."""
    given: dict[str, Any] = {}
    if time_limit is not None:
        given["timeout_seconds"] = time_limit
    if memory_limit is not None:
        given["memory_bytes"] = memory_limit
    return replace(limits or Limits(), **given)


def without_values(report: RunReport) -> RunReport:
    """Return *report* without the pickles in it: a future keeps it as long as it keeps the value."""
    return replace(report, value=None, pickled_error=None)


def unpack(report: RunReport) -> tuple[Any, BaseException | None]:
    """
    Return the value of a run, or what it raised, or why it did neither. Never raises.

    Only for children that you trust: unpickling runs code of the sender's choice.
    """
    if report.outcome is Outcome.RETURNED and report.value is not None:
        try:
            return pickle.loads(report.value), None
        except BaseException as error:  # noqa: BLE001 - a value's own __setstate__ may raise anything
            return None, error
    failure = report.failure
    if (
        report.outcome is Outcome.RAISED
        and failure is not None
        and failure.exception_class_path != RAISED_PATH
    ):
        return None, carry.load_error(failure, report.pickled_error)
    # Late: it costs 15 ms, and is seldom needed.
    from dayfly.executor import call_errors

    return None, call_errors.lost(without_values(report))
