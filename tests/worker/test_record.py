"""The one recorder: what each ending makes of a job."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from dayfly.executor import Cause, Outcome
from dayfly.executor.outcome import Failure, MemoryReading, Usage
from dayfly.models import JobStatus
from dayfly.worker import record
from dayfly.worker.clock import DatabaseClock
from tests.worker.conftest import JOB_ID, MORNING, Clock, make_claim, make_report

WORKER = SimpleNamespace(id=JOB_ID, name="me")
FAILURE = Failure(exception_class_path="builtins.ValueError", message="no", traceback="Traceback")


@pytest.fixture
def clock(clock_of: Callable[[str], Clock]) -> DatabaseClock:
    """At 1,000 s of the machine's clock the database's shows nine."""
    clock_of("dayfly.worker.clock")
    return DatabaseClock(MORNING)


def settle(clock: DatabaseClock, *, claim: Any = None, **fields: Any) -> Any:
    return record.settle(claim or make_claim(), make_report(**fields), worker=WORKER, clock=clock)


@pytest.mark.parametrize(
    ("outcome", "fields", "status", "charged", "class_path"),
    [
        (Outcome.RETURNED, {"value": b"3"}, "SUCCESSFUL", True, ""),
        (Outcome.RETURNED, {"value": None}, "FAILED", True, ""),
        (Outcome.RAISED, {"failure": FAILURE}, "FAILED", True, "builtins.ValueError"),
        (Outcome.EXITED, {"exit_code": 3}, "FAILED", True, "dayfly.exceptions.ChildExited"),
        (Outcome.KILLED, {"signal": 9}, "FAILED", True, "dayfly.exceptions.ChildKilled"),
        (Outcome.TIMED_OUT, {"signal": 15}, "FAILED", True, "dayfly.exceptions.TimedOut"),
        (
            Outcome.TIMED_OUT,
            {"failure": FAILURE, "cause": Cause.SOFT_LIMIT},
            "FAILED",
            True,
            "builtins.ValueError",
        ),
        (Outcome.OVER_MEMORY, {"signal": 9}, "FAILED", True, "dayfly.exceptions.OverMemory"),
        (Outcome.OVER_MEMORY, {"failure": FAILURE}, "FAILED", True, "builtins.ValueError"),
        (Outcome.CANCELLED, {"signal": 15}, "FAILED", True, "dayfly.exceptions.Cancelled"),
        (Outcome.STOPPED, {"signal": 15}, "READY", False, "dayfly.exceptions.WorkerStopped"),
        (Outcome.LOST, {}, "READY", True, "dayfly.exceptions.WorkerLost"),
    ],
)
def test_ending_decides_what_the_job_becomes(
    clock: DatabaseClock,
    outcome: Outcome,
    fields: dict[str, Any],
    status: str,
    charged: bool,
    class_path: str,
) -> None:
    settlement = settle(clock, **({"value": None, "outcome": outcome} | fields))

    assert (settlement.status, settlement.charged) == (status, charged)
    assert settlement.run.outcome == outcome.value
    assert settlement.run.exception_class_path == class_path
    assert (settlement.return_value is not None) == (status == JobStatus.SUCCESSFUL)
    assert settlement.run.exit_code == fields.get("exit_code")
    assert settlement.run.signal == fields.get("signal")


def test_every_outcome_has_a_rule() -> None:
    assert set(record.STATUS_AFTER) == set(Outcome)
    assert set(record.EXCEPTION_OF) == set(Outcome) - {Outcome.RETURNED, Outcome.RAISED}


def test_moments_are_told_by_the_databases_clock(clock: DatabaseClock) -> None:
    run = settle(clock).run

    assert run.started_at == MORNING + timedelta(seconds=3)
    assert run.finished_at == MORNING + timedelta(seconds=3.5)
    assert run.queue_wait_seconds == 3.0
    assert run.run_seconds == 0.5


def test_run_never_starts_before_its_claim(clock: DatabaseClock) -> None:
    claim = make_claim(claimed_at=MORNING + timedelta(seconds=10))

    run = settle(clock, claim=claim).run

    assert run.claimed_at <= run.started_at <= run.finished_at


def test_job_that_was_due_later_did_not_wait(clock: DatabaseClock) -> None:
    claim = make_claim(due_at=MORNING + timedelta(seconds=60))

    assert settle(clock, claim=claim).run.queue_wait_seconds == 0.0


def test_run_whose_start_is_unknown_began_when_it_was_dispatched(clock: DatabaseClock) -> None:
    run = settle(clock, outcome=Outcome.EXITED, value=None, started_ns=None).run

    assert run.started_at == MORNING + timedelta(seconds=2.9)
    assert run.run_seconds == pytest.approx(0.6)


def test_what_is_unknown_is_null(clock: DatabaseClock) -> None:
    run = settle(clock, outcome=Outcome.KILLED, signal=9, value=None).run

    unknown = {
        "cpu_user_seconds", "cpu_system_seconds", "minor_faults", "major_faults", "new_modules",
        "child_peak_rss_bytes", "result_bytes", "child_pid", "fork_seconds", "exit_code",
        "parent_rss_before_fork_bytes", "parent_anon_bytes",
    }  # fmt: skip
    assert {name for name in unknown if getattr(run, name) is None} == unknown


def test_figures_stand_in_their_columns(clock: DatabaseClock) -> None:
    start = MemoryReading(rss_bytes=1, anon_bytes=2, uss_bytes=3, pss_bytes=4)
    end = MemoryReading(rss_bytes=5, anon_bytes=6, uss_bytes=7, pss_bytes=8)
    usage = Usage(user_seconds=0.1, system_seconds=0.2, minor_faults=9, major_faults=10)

    run = settle(
        clock, memory_start=start, memory_end=end, usage=usage, value=b"[1]", new_modules=11
    ).run

    assert [getattr(run, f"child_{kind}_start_bytes") for kind in ("rss", "uss", "pss")] == [
        1,
        3,
        4,
    ]
    assert [getattr(run, f"child_{kind}_end_bytes") for kind in ("rss", "uss", "pss")] == [5, 7, 8]
    assert (run.cpu_user_seconds, run.cpu_system_seconds) == (0.1, 0.2)
    assert (run.minor_faults, run.major_faults, run.new_modules) == (9, 10, 11)
    assert (run.result_bytes, run.payload_bytes) == (3, 26)


def test_nul_is_made_visible(clock: DatabaseClock) -> None:
    failure = Failure(exception_class_path="a.B", message="x\0", traceback="t\0")

    run = settle(
        clock, outcome=Outcome.RAISED, failure=failure, message="m\0", output=b"o\0\xff"
    ).run

    assert (run.message, run.traceback) == ("m\\x00", "t\\x00")
    assert run.output == "o\\x00\\xff"


def test_claim_given_back_unstarted_leaves_no_run() -> None:
    settlement = record.give_back(make_claim(epoch=4))

    assert (settlement.status, settlement.charged, settlement.epoch) == ("READY", False, 4)
    assert settlement.run is None
