"""
Parent side: why a child died without a report, and the sentence that says so.

What is known: the wait status, what we did to it ourselves, what it held when we last
looked, and whether the kernel counted a kill of its own.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from dayfly.executor.child_codes import EXIT_CANNOT_REPORT, EXIT_START_FAILED, SOFT_SIGNAL
from dayfly.executor.children import Child
from dayfly.executor.kernelkills import KernelKills
from dayfly.executor.outcome import Cause, Outcome

#: Signals that a process brings upon itself.
_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGSYS}
)


@dataclass(frozen=True, slots=True)
class Death:
    """A wait status, read."""

    outcome: Outcome
    cause: Cause | None
    exit_code: int | None
    signal: int | None


def judge(child: Child, status: int | None, kills: KernelKills) -> Death:
    """Decide what ended *child*. *status* is None when other code of the host's reaped it."""
    exit_code, number = decode_status(status)
    outcome, cause = child.ending, child.cause
    if outcome is None:
        outcome, cause = _unexpected(child, number, kills)
    return Death(outcome=outcome, cause=cause, exit_code=exit_code, signal=number)


def _unexpected(
    child: Child, number: int | None, kills: KernelKills
) -> tuple[Outcome, Cause | None]:
    if number is None:
        return Outcome.EXITED, None
    if number == SOFT_SIGNAL and child.was_told:
        return Outcome.TIMED_OUT, Cause.SOFT_LIMIT  # it gave the signal its default action back
    if number in _CRASHES:
        return Outcome.KILLED, Cause.CRASH
    if number == signal.SIGKILL and not child.is_confined and kills.claim_one():
        return Outcome.KILLED, Cause.OUT_OF_MEMORY
    return Outcome.KILLED, Cause.OUTSIDE


def decode_status(status: int | None) -> tuple[int | None, int | None]:
    """Split a wait status into exit code and signal number; one of them is None, both if unknown."""
    if status is None:
        return None, None
    code = os.waitstatus_to_exitcode(status)
    return (code, None) if code >= 0 else (None, -code)


def signal_name(number: int) -> str:
    """Name a signal, "SIGKILL"; its number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def megabytes(count: int | None) -> str:
    """Write bytes for a person: "512.0 MB" of 1,000,000 bytes."""
    return "?" if count is None else f"{count / 1e6:,.1f} MB"


def sentence(child: Child, death: Death, kills: KernelKills) -> str:
    """Say what happened, to which call, and what to do about it."""
    what = title_of(child)
    match death.outcome:
        case Outcome.TIMED_OUT:
            return _time_sentence(child, death.cause, what)
        case Outcome.OVER_MEMORY:
            return _memory_sentence(child, death.cause, what)
        case Outcome.STOPPED:
            return f"Child {child.pid} was stopped in {what}, because its worker stops."
        case Outcome.CANCELLED:
            return f"Child {child.pid} was ended in {what}, because the call was cancelled."
        case Outcome.KILLED if death.signal is not None:
            return _kill_sentence(child, death, what, kills)
    return _exit_sentence(child, death.exit_code, what)


def title_of(child: Child) -> str:
    """Name the call of *child*, for a sentence."""
    return (child.call.title if child.call else "") or "the call"


def soft_sentence(child: Child, message: str) -> str:
    """Say that SoftTimeLimitExceeded left the call."""
    return (
        f"Child {child.pid} ran past its soft time limit of"
        f" {child.limits.soft_timeout_seconds or 0:g} s in {title_of(child)}, which ended with"
        f" {message}. Raise the soft limit, or do less in one task."
    )


def memory_error_sentence(child: Child, message: str) -> str:
    """Say that a MemoryError left the call."""
    return (
        f"Child {child.pid} was refused more memory in {title_of(child)} ({message}): it may ask for"
        f" {megabytes(child.limits.data_limit_bytes)} more than it starts with. Raise the limit"
        " of memory, or read less at once."
    )


def _time_sentence(child: Child, cause: Cause | None, what: str) -> str:
    limits = child.limits
    if cause is Cause.CPU_LIMIT:
        return (
            f"Child {child.pid} used up its {limits.cpu_seconds or 0:g} s of CPU time in {what} and"
            " was ended. Raise cpu_seconds, or do less in one task."
        )
    if cause is Cause.SOFT_LIMIT:
        return soft_sentence(child, "the signal that tells of it")
    return (
        f"Child {child.pid} ran past its time limit of {limits.timeout_seconds or 0:g} s in {what}"
        " and was ended. Raise the limit, or do less in one task."
    )


def _memory_sentence(child: Child, cause: Cause | None, what: str) -> str:
    limit = megabytes(child.limits.memory_bytes)
    if cause is Cause.CGROUP_LIMIT:
        how = "the kernel killed it there, in its cgroup"
    else:
        how = (
            "it and the processes that it started held"
            f" {megabytes(child.growth_bytes)} more than before, and were killed"
        )
    return (
        f"Child {child.pid} reached its memory limit of {limit} in {what}: {how}."
        " Raise the limit, or read less at once."
    )


def _kill_sentence(child: Child, death: Death, what: str, kills: KernelKills) -> str:
    assert death.signal is not None
    text = f"Child {child.pid} was killed by {signal_name(death.signal)} in {what}."
    if death.cause is Cause.OUT_OF_MEMORY:
        # The count of our cgroup has those in it that the machine's want of memory was behind.
        place = "this service, its container or the machine" if kills.are_ours else "this machine"
        seen = child.last_sample
        held = f" It held {megabytes(seen.rss_bytes)} when last seen." if seen else ""
        return (
            f"{text} The kernel did it: the memory of {place} ran out.{held}"
            " Give this task a memory limit, run fewer at once, or add memory."
        )
    if death.cause is Cause.CRASH:
        text += " A crash in C code: look at its extension modules."
        if child.limits.data_limit_bytes is not None:
            text += " Code in C may also end so when its limit of memory refuses it more."
        return text
    if death.signal == signal.SIGKILL:
        text += (
            " Nothing in dayfly sent it, and the kernel counted no kill for lack of memory:"
            " look for a person or a program that did."
        )
    return text


def _exit_sentence(child: Child, exit_code: int | None, what: str) -> str:
    if exit_code == EXIT_CANNOT_REPORT:
        return (
            f"Child {child.pid} could not report how {what} ended: the task closed or replaced "
            "descriptors that are not its own."
        )
    if exit_code == EXIT_START_FAILED:
        return f"Child {child.pid} failed before it could run {what}; its output may say why."
    if exit_code is None:
        return (
            f"Child {child.pid} ended in {what} without a report, and its exit status was taken by other "
            "code in this process. Does it ignore SIGCHLD, or wait for any child?"
        )
    return (
        f"Child {child.pid} left with exit code {exit_code} in {what}, without a report. "
        "Does the task call os._exit?"
    )
