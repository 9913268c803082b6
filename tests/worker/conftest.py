"""What the units of the worker are tested with: a clock that tests set."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from dayfly.executor import Outcome, RunReport
from dayfly.queue import Claim

JOB_ID = UUID("01890000-0000-7000-8000-000000000001")
MORNING = datetime(2026, 1, 2, 9, 0, tzinfo=UTC)


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def monotonic_ns(self) -> int:
        return round(self.now * 1e9)


@pytest.fixture
def clock_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Clock]:
    """Return a function that gives a module a clock that stands still."""

    def replace(module: str) -> Clock:
        clock = Clock()
        monkeypatch.setattr(f"{module}.time", clock)
        return clock

    return replace


def make_claim(**fields: Any) -> Claim:
    """Make a claim; due at nine, claimed two seconds later."""
    defaults = {
        "job_id": JOB_ID,
        "epoch": 1,
        "attempt": 1,
        "task_path": "shop.tasks.mail",
        "queue_name": "default",
        "priority": 0,
        "arguments": '{"args": [], "kwargs": {}}',
        "run_after": None,
        "enqueued_at": MORNING,
        "due_at": MORNING,
        "claimed_at": MORNING + timedelta(seconds=2),
        "started_at": MORNING + timedelta(seconds=2),
        "times_lost": 0,
    }
    return Claim(**(defaults | fields))


def make_report(**fields: Any) -> RunReport:
    """Make a report of a run that began at 1,003 s of the clock and took half a second."""
    defaults = {
        "call_id": f"{JOB_ID}.1",
        "outcome": Outcome.RETURNED,
        "message": "",
        "value": b"null",
        "dispatched_ns": 1_002_900_000_000,
        "started_ns": 1_003_000_000_000,
        "finished_ns": 1_003_500_000_000,
    }
    return RunReport(**(defaults | fields))
