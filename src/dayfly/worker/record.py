"""
Parent side: the one recorder. A claim and a run report become a settlement.

Every ending goes through here: what the child reported, and what the executor
reported for a child that could not.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from dayfly.exceptions import (
    Cancelled,
    ChildExited,
    ChildKilled,
    OverMemory,
    ResultRefused,
    TimedOut,
    WorkerLost,
    WorkerStopped,
)
from dayfly.executor.outcome import MemoryReading, Outcome, RunReport
from dayfly.models import JobStatus
from dayfly.queue import Claim, NewRun, Settlement
from dayfly.worker.clock import DatabaseClock

#: What the job becomes, by the outcome of its run.
STATUS_AFTER = {
    Outcome.RETURNED: JobStatus.SUCCESSFUL,
    Outcome.RAISED: JobStatus.FAILED,
    Outcome.EXITED: JobStatus.FAILED,
    Outcome.KILLED: JobStatus.FAILED,
    Outcome.TIMED_OUT: JobStatus.FAILED,
    Outcome.OVER_MEMORY: JobStatus.FAILED,
    Outcome.STOPPED: JobStatus.READY,
    Outcome.CANCELLED: JobStatus.FAILED,
    Outcome.LOST: JobStatus.READY,
}

#: The exception that stands for an ending without one.
EXCEPTION_OF = {
    Outcome.EXITED: ChildExited,
    Outcome.KILLED: ChildKilled,
    Outcome.TIMED_OUT: TimedOut,
    Outcome.OVER_MEMORY: OverMemory,
    Outcome.STOPPED: WorkerStopped,
    Outcome.CANCELLED: Cancelled,
    Outcome.LOST: WorkerLost,
}


def settle(claim: Claim, report: RunReport, *, worker: Any, clock: DatabaseClock) -> Settlement:
    """Decide what *report* makes of the job, and write down the run."""
    status = STATUS_AFTER[report.outcome]
    value = report.value.decode() if report.value is not None else None
    if status is JobStatus.SUCCESSFUL and value is None:
        status = JobStatus.FAILED
    started_at = _started_at(claim, report, clock)
    return Settlement(
        job_id=claim.job_id,
        epoch=claim.epoch,
        status=status,
        return_value=value if status is JobStatus.SUCCESSFUL else None,
        charged=report.outcome is not Outcome.STOPPED,
        started_at=started_at,
        run=_run(claim, report, worker, started_at, clock),
    )


def plain(settlement: Settlement) -> Settlement:
    """
    Return *settlement* with its texts in ASCII and without output, for a database that refused it.

    A column set that knows no emoji, a limit that nobody thought of: the outcome matters more.
    """
    if settlement.run is None:
        return settlement
    for name, value in vars(settlement.run).items():
        if isinstance(value, str):
            setattr(settlement.run, name, _ascii(value))
    settlement.run.output = "(not recorded: the database refused the row with it)"
    return settlement


def bare(settlement: Settlement, why: str) -> Settlement:
    """
    Return of a plain *settlement* what says how the job ended, for a database that refused that, too.

    What the task returned is all that was left to refuse: the job fails, and says *why*.
    """
    if settlement.return_value is None or settlement.run is None:
        return settlement
    settlement.run.outcome = Outcome.RAISED.value
    settlement.run.exception_class_path = f"{ResultRefused.__module__}.{ResultRefused.__qualname__}"
    settlement.run.message = _ascii(
        f"What {settlement.run.task_path} returned, {len(settlement.return_value)} bytes of JSON, was"
        f" refused by the database: {why}. Store it in a file or a model and return its name."
    )
    return replace(settlement, status=JobStatus.FAILED, return_value=None)


def give_back(claim: Claim) -> Settlement:
    """Return a claim that never started."""
    return Settlement(
        job_id=claim.job_id,
        epoch=claim.epoch,
        status=JobStatus.READY,
        return_value=None,
        charged=False,
        started_at=None,
        run=None,
    )


def _run(
    claim: Claim,
    report: RunReport,
    worker: Any,
    started_at: datetime,
    clock: DatabaseClock,
) -> NewRun:
    started_ns = report.started_ns or report.dispatched_ns
    usage = report.usage
    return NewRun(
        job_id=claim.job_id,
        epoch=claim.epoch,
        attempt=claim.attempt,
        worker_id=worker.id,
        worker_name=worker.name,
        task_path=claim.task_path,
        child_pid=report.child_pid,
        child_index=report.child_index,
        outcome=report.outcome.value,
        message=_storable(report.message),
        exit_code=report.exit_code,
        signal=report.signal,
        exception_class_path=_exception_class_path(report),
        traceback=_storable(report.failure.traceback) if report.failure else "",
        output=_storable(report.output.decode("utf-8", "backslashreplace")),
        output_bytes=report.output_bytes,
        enqueued_at=claim.enqueued_at,
        claimed_at=claim.claimed_at,
        started_at=started_at,
        finished_at=max(clock.at(report.finished_ns), started_at),
        queue_wait_seconds=max((started_at - claim.due_at).total_seconds(), 0.0),
        fork_seconds=report.fork_seconds,
        run_seconds=max(report.finished_ns - started_ns, 0) / 1e9,
        parent_rss_before_fork_bytes=report.parent_rss_before_fork_bytes,
        parent_anon_bytes=report.parent_anon_before_fork_bytes,
        parent_rss_after_join_bytes=report.parent_rss_after_join_bytes,
        child_peak_rss_bytes=report.peak_rss_bytes,
        cpu_user_seconds=usage.user_seconds if usage else None,
        cpu_system_seconds=usage.system_seconds if usage else None,
        minor_faults=usage.minor_faults if usage else None,
        major_faults=usage.major_faults if usage else None,
        new_modules=report.new_modules,
        payload_bytes=len(claim.arguments),
        result_bytes=None if report.value is None else len(report.value),
        **_memory("start", report.memory_start),
        **_memory("end", report.memory_end),
    )


def _started_at(claim: Claim, report: RunReport, clock: DatabaseClock) -> datetime:
    # Clocks are read at both ends of a round trip: never let a run start before its claim.
    return max(clock.at(report.started_ns or report.dispatched_ns), claim.claimed_at)


def _memory(moment: str, reading: MemoryReading | None) -> dict[str, int | None]:
    if reading is None:
        return {}
    return {
        f"child_rss_{moment}_bytes": reading.rss_bytes,
        f"child_uss_{moment}_bytes": reading.uss_bytes,
        f"child_pss_{moment}_bytes": reading.pss_bytes,
    }


def _exception_class_path(report: RunReport) -> str:
    if report.failure is not None:
        return _storable(report.failure.exception_class_path)
    kind = EXCEPTION_OF.get(report.outcome)
    return f"{kind.__module__}.{kind.__qualname__}" if kind else ""


def _storable(text: str) -> str:
    """PostgreSQL stores no NUL in text."""
    return text.replace("\0", "\\x00")


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()[:10_000]
