"""
Parent side: make a RunReport, from what a child sent, from how it died, or of a call that had no child.

Every field that a child sends is checked: the code in it may have sent anything.
"""

from __future__ import annotations

import os
import resource
import time
from typing import Any

from dayfly.executor import deaths, memory
from dayfly.executor.call import Call
from dayfly.executor.child_codes import EXIT_START_FAILED
from dayfly.executor.children import Child
from dayfly.executor.kernelkills import KernelKills
from dayfly.executor.outcome import (
    Cause,
    ChildExit,
    Failure,
    MemoryReading,
    Outcome,
    RunReport,
    Usage,
)
from dayfly.executor.wire import Frame, Garbage


def from_frame(child: Child, frame: Frame) -> RunReport:
    """
    Make the report of the current call from what the child sent.

    Raises:
        Garbage: a field is missing, of the wrong type, or of another call.
    """
    call = child.call
    head = frame.head
    if call is None or head.get("id") != call.call_id:
        raise Garbage("it reports a call that it was not given")
    try:
        failure = _failure(head["failure"])
        outcome, cause = _ending(head["cause"], failure)
        start, end = _reading(head["memory_start"]), _reading(head["memory_end"])
        if child.calls_served == 1:
            child.anon_at_first = _anon(start)
        return RunReport(
            call_id=call.call_id,
            outcome=outcome,
            cause=cause,
            message=_message(child, outcome, failure),
            value=frame.body if failure is None else None,
            failure=failure,
            pickled_error=frame.body or None if failure is not None else None,
            output=bytes(child.output),
            output_bytes=child.output_bytes,
            child_pid=child.pid,
            child_index=child.calls_served,
            child_age_seconds=time.monotonic() - child.born,
            child_growth_bytes=_growth(child.anon_at_first, _anon(end)),
            dispatched_ns=child.dispatched_ns,
            started_ns=_count(head["started_ns"]),
            finished_ns=_count(head["finished_ns"]),
            fork_seconds=child.fork_seconds if child.calls_served == 1 else None,
            parent_rss_before_fork_bytes=_rss(child.parent_before_fork),
            parent_anon_before_fork_bytes=_anon(child.parent_before_fork),
            memory_start=start,
            memory_end=end,
            peak_rss_bytes=_count(head["peak_rss_bytes"]),
            usage=_usage(head["usage"]),
            new_modules=_count(head["new_modules"]),
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        message = f"its report has a wrong field ({error})"
        raise Garbage(message) from error


def from_death(
    child: Child,
    status: int | None,
    rusage: resource.struct_rusage | None,
    *,
    now_ns: int,
    kills: KernelKills,
) -> RunReport:
    """
    Make the report of a call whose child died without one: what wait4 and the last sample know.

    *status* and *rusage* are None when other code of the host's reaped the child.
    """
    assert child.call is not None
    if child.calls_served > 1:
        rusage = None  # wait4 knows the peak and the sum of all its calls only
    death = deaths.judge(child, status, kills)
    has_not_begun = death.exit_code == EXIT_START_FAILED or child.held_call is not None
    return RunReport(
        call_id=child.call.call_id,
        outcome=death.outcome,
        cause=death.cause,
        message=child.complaint or deaths.sentence(child, death, kills),
        exit_code=death.exit_code,
        signal=death.signal,
        output=bytes(child.output),
        output_bytes=child.output_bytes,
        child_pid=child.pid,
        child_index=child.calls_served,
        dispatched_ns=child.dispatched_ns,
        started_ns=None if has_not_begun else child.dispatched_ns,
        finished_ns=now_ns,
        fork_seconds=child.fork_seconds if child.calls_served == 1 else None,
        parent_rss_before_fork_bytes=_rss(child.parent_before_fork),
        parent_anon_before_fork_bytes=_anon(child.parent_before_fork),
        memory_end=child.last_sample,
        parent_rss_after_join_bytes=_rss(memory.quick()),
        peak_rss_bytes=_highest(child, rusage) if rusage else None,
        usage=usage_of(rusage) if rusage else None,
    )


def exit_of(child: Child, call_id: str, status: int | None, *, was_recorded: bool) -> ChildExit:
    """Make what is told of a child that ended after it had reported *call_id*."""
    exit_code, signal_number = deaths.decode_status(status)
    return ChildExit(
        call_id=call_id,
        child_pid=child.pid,
        was_recorded=was_recorded,
        exit_code=exit_code,
        signal=signal_number,
        output=bytes(child.output),
        parent_rss_after_join_bytes=_rss(memory.quick()),
    )


def of_inline(
    call: Call, head: dict[str, Any], value: bytes, *, index: int, dispatched_ns: int
) -> RunReport:
    """
    Make the report of a call that this process ran itself, as the *index*-th of its executor.

    There is no fork to measure, no child that ages or grows, and no output that is captured.
    """
    failure = _failure(head["failure"])
    return RunReport(
        call_id=call.call_id,
        outcome=Outcome.RETURNED if failure is None else Outcome.RAISED,
        message="" if failure is None else _in_words(failure),
        value=value if failure is None else None,
        failure=failure,
        pickled_error=value or None if failure is not None else None,
        output_bytes=None,
        child_pid=os.getpid(),
        child_index=index,
        dispatched_ns=dispatched_ns,
        started_ns=head["started_ns"],
        finished_ns=head["finished_ns"],
        memory_start=_reading(head["memory_start"]),
        memory_end=_reading(head["memory_end"]),
        peak_rss_bytes=head["peak_rss_bytes"],
        usage=_usage(head["usage"]),
        new_modules=head["new_modules"],
    )


def of_interrupted(call: Call, failure: Failure, *, index: int, dispatched_ns: int) -> RunReport:
    """Make the report of a call of this process that was interrupted just before or after it ran."""
    return RunReport(
        call_id=call.call_id,
        outcome=Outcome.RAISED,
        message=_in_words(failure),
        failure=failure,
        output_bytes=None,
        child_pid=os.getpid(),
        child_index=index,
        dispatched_ns=dispatched_ns,
        finished_ns=time.monotonic_ns(),
    )


def of_unstarted(call: Call, outcome: Outcome) -> RunReport:
    """Make the report of a call that was cancelled or stopped before any child got it."""
    now_ns = time.monotonic_ns()
    return RunReport(
        call_id=call.call_id,
        outcome=outcome,
        message=f"{call.title or 'The call'} was {outcome} before it started.",
        dispatched_ns=now_ns,
        finished_ns=now_ns,
    )


def _highest(child: Child, rusage: resource.struct_rusage) -> int | None:
    peak_bytes = memory.peak_bytes(rusage)
    if child.was_executed:
        # The mark begins with what this process held when it started the other: below that nobody knows.
        ours = memory.peak_bytes(resource.getrusage(resource.RUSAGE_SELF))
        return peak_bytes if peak_bytes > ours else None
    # The kernel's high-water mark lags behind by some pages per CPU.
    sampled = child.last_sample.rss_bytes if child.last_sample else 0
    return max(peak_bytes, sampled)


def usage_of(rusage: resource.struct_rusage) -> Usage:
    """Pick the fields that are kept."""
    return Usage(
        user_seconds=rusage.ru_utime,
        system_seconds=rusage.ru_stime,
        minor_faults=rusage.ru_minflt,
        major_faults=rusage.ru_majflt,
    )


def _growth(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(after - before, 0)


def _rss(reading: MemoryReading | None) -> int | None:
    return reading.rss_bytes if reading else None


def _anon(reading: MemoryReading | None) -> int | None:
    return reading.anon_bytes if reading else None


#: What a child may say of the cause: those of limits that act in the child.
_TOLD_BY_CHILD = {
    Cause.SOFT_LIMIT: Outcome.TIMED_OUT,
    Cause.MEMORY_ERROR: Outcome.OVER_MEMORY,
}


def _ending(cause: Any, failure: Failure | None) -> tuple[Outcome, Cause | None]:
    if cause is None:
        return (Outcome.RETURNED if failure is None else Outcome.RAISED), None
    if failure is None:
        raise ValueError("a cause without a failure")
    known = Cause(cause)
    return _TOLD_BY_CHILD[known], known


def _message(child: Child, outcome: Outcome, failure: Failure | None) -> str:
    if failure is None:
        return ""
    if outcome is Outcome.TIMED_OUT:
        return deaths.soft_sentence(child, _class_name(failure))
    text = _in_words(failure)
    return deaths.memory_error_sentence(child, text) if outcome is Outcome.OVER_MEMORY else text


def _in_words(failure: Failure) -> str:
    name = _class_name(failure)
    return f"{name}: {failure.message}" if failure.message else name


def _class_name(failure: Failure) -> str:
    return failure.exception_class_path.rpartition(".")[2]


def _failure(value: Any) -> Failure | None:
    if value is None:
        return None
    return Failure(
        exception_class_path=_text(value[0], 500),
        message=_text(value[1], 10_000),
        traceback=_text(value[2], 1 << 20),
    )


def _text(value: Any, max_chars: int) -> str:
    if not isinstance(value, str):
        raise TypeError("text expected")
    # Lone surrogates cannot be stored or sent on.
    return value[:max_chars].encode("utf-8", "backslashreplace").decode()


def _count(value: Any) -> int:
    # bool is an int, and a database column is 64 bits wide.
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise TypeError("a count expected")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1e12:
        raise TypeError("seconds expected")
    return float(value)


def _reading(value: Any) -> MemoryReading | None:
    if value is None:
        return None
    rss, anon, uss, pss = value
    return MemoryReading(
        rss_bytes=_count(rss),
        anon_bytes=None if anon is None else _count(anon),
        uss_bytes=None if uss is None else _count(uss),
        pss_bytes=None if pss is None else _count(pss),
    )


def _usage(value: Any) -> Usage:
    user, system, minor, major = value
    return Usage(
        user_seconds=_seconds(user),
        system_seconds=_seconds(system),
        minor_faults=_count(minor),
        major_faults=_count(major),
    )
