"""
Both sides: plain data. How a run ended, and everything known about it.

A run is data before it is anything else: a child that returned, one that raised
and one that died without a word all become a RunReport, and whoever reads it
(a worker that writes rows, a daemon with a loop of its own) needs one path only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """The closed list of endings."""

    #: The function returned.
    RETURNED = "returned"
    #: The function raised, or its value could not be sent.
    RAISED = "raised"
    #: The child left without a report (os._exit, or its pipe was closed).
    EXITED = "exited"
    #: A signal that we did not send ended the child.
    KILLED = "killed"
    #: It ran past a limit of time (soft, hard, or of the CPU), and was ended.
    TIMED_OUT = "timed_out"
    #: It went past a limit of memory, and was ended.
    OVER_MEMORY = "over_memory"
    #: We ended it because the worker stops; it did nothing wrong.
    STOPPED = "stopped"
    #: Its caller wanted it no more.
    CANCELLED = "cancelled"
    #: Its worker died or went silent; written by whoever rescued the job.
    LOST = "lost"


class Cause(StrEnum):
    """What was behind an outcome that can come about in several ways. A closed list, too."""

    #: timed_out: SoftTimeLimitExceeded left the function.
    SOFT_LIMIT = "soft_limit"
    #: timed_out: we ended it at the hard limit.
    HARD_LIMIT = "hard_limit"
    #: timed_out: it used up its CPU time.
    CPU_LIMIT = "cpu_limit"
    #: over_memory: a MemoryError left the function, which had a limit.
    MEMORY_ERROR = "memory_error"
    #: over_memory: we saw it hold too much, and killed it.
    MEMORY_LIMIT = "memory_limit"
    #: over_memory: the kernel killed it at the limit of its own cgroup.
    CGROUP_LIMIT = "cgroup_limit"
    #: killed: by the kernel, because the memory of the machine or the container ran out.
    OUT_OF_MEMORY = "out_of_memory"
    #: killed: by a signal of its own making: a crash in C code, abort().
    CRASH = "crash"
    #: killed: by somebody else's signal.
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An exception, as text: the parent never unpickles what a child sent."""

    #: Importable path of the exception's class, "builtins.ValueError".
    exception_class_path: str
    #: str(exception), cut to a sane length.
    message: str
    #: The formatted traceback, cut in the middle when it is very long.
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReading:
    """What one process held at one moment, in bytes. None where the kernel did not say."""

    #: Resident set: private pages and those shared with other processes.
    rss_bytes: int
    #: Resident anonymous memory: heap and stacks, without file mappings.
    anon_bytes: int | None = None
    #: Private to the process: what dies with it.
    uss_bytes: int | None = None
    #: Private plus its share of shared pages; the one figure that may be summed.
    pss_bytes: int | None = None
    #: Highest resident set so far (since the last reset).
    peak_rss_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """CPU and page faults, as getrusage(2) or wait4(2) count them."""

    user_seconds: float
    system_seconds: float
    minor_faults: int
    major_faults: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """
    One run of one call in a child. The same shape for every ending.

    Moments are CLOCK_MONOTONIC nanoseconds, which parent and child share.
    """

    call_id: str
    outcome: Outcome
    #: One sentence for a person: what happened, and what to do about it.
    message: str
    #: What the function returned, as the codec of the call wrote it.
    value: bytes | None = None
    failure: Failure | None = None
    #: For outcomes that can come about in several ways; else None.
    cause: Cause | None = None
    #: What the function raised, pickled, if it could be, for a call whose function was pickled, too.
    pickled_error: bytes | None = None
    exit_code: int | None = None
    signal: int | None = None
    #: The last bytes written to stdout and stderr, by whatever means.
    output: bytes = b""
    #: How much was written in all; more than len(output) when the head was dropped. None where
    #: nothing is captured (launcher "inline").
    output_bytes: int | None = 0
    child_pid: int | None = None
    #: The how-manieth call of its child this was, from 1.
    child_index: int = 1
    #: How old its child was after it, and how much more it held (RssAnon) than before its first
    #: call. None for a child that died with the call.
    child_age_seconds: float | None = None
    child_growth_bytes: int | None = None
    dispatched_ns: int
    #: None when the child died before the function was called.
    started_ns: int | None = None
    finished_ns: int
    #: How long os.fork took in the parent.
    fork_seconds: float | None = None
    parent_rss_before_fork_bytes: int | None = None
    parent_anon_before_fork_bytes: int | None = None
    #: Known here only for a child that died with the call; else see ChildExit.
    parent_rss_after_join_bytes: int | None = None
    memory_start: MemoryReading | None = None
    memory_end: MemoryReading | None = None
    peak_rss_bytes: int | None = None
    usage: Usage | None = None
    #: How many modules the run imported.
    new_modules: int | None = None

    @property
    def was_sent(self) -> bool:
        """Whether the child told us itself. Else it died first, or never started."""
        return self.value is not None or self.failure is not None

    @property
    def never_began(self) -> bool:
        """Whether the child died at birth, or while it loaded: nothing of the call was done."""
        return self.started_ns is None and not self.was_sent


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildExit:
    """
    The end of a child that had reported already: what wait4 knew.

    Belongs to the last call that the child ran, or to an earlier one that it never heard was recorded.
    """

    call_id: str
    child_pid: int
    #: False when it died before it could hear that its report was recorded.
    was_recorded: bool
    exit_code: int | None
    signal: int | None
    #: What it wrote after its report.
    output: bytes
    parent_rss_after_join_bytes: int | None
