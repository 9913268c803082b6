"""What holds for a child that is an interpreter of its own while that still loads."""

from __future__ import annotations

import os
import signal
import time

import pytest

from dayfly.executor import Call, Executor, Limits, Outcome, RunReport, Source, load_value
from tests import calls
from tests.helpers import collect

HERE = f"{__name__}."
LOAD_SECONDS = 1.0


def loads_slowly() -> None:
    time.sleep(LOAD_SECONDS)


def loads_for_ever() -> None:
    time.sleep(600)


def spawned(call: Call, source: Source) -> RunReport:
    with Executor(launcher="spawn", source=source, standby=0) as executor:
        executor.submit(call)
        (report,) = collect(executor, 1)
    return report


@pytest.mark.parametrize(
    "limits",
    [Limits(timeout_seconds=LOAD_SECONDS / 2), Limits(soft_timeout_seconds=LOAD_SECONDS / 2)],
    ids=["hard", "soft"],
)
def test_limits_of_a_call_begin_when_its_child_has_loaded(limits: Limits) -> None:
    source = Source(preload=("tests.calls",), warm_up=HERE + "loads_slowly")

    report = spawned(Call.of(calls.mark, limits=limits), source)

    assert report.outcome is Outcome.RETURNED, report.message


def test_child_that_never_finishes_loading_fails_its_call_and_says_so() -> None:
    source = Source(warm_up=HERE + "loads_for_ever", start_seconds=0.5)

    report = spawned(Call.of(calls.mark), source)

    assert report.outcome is Outcome.EXITED
    assert "it was not ready for its first call within 0.5 s" in report.message
    assert report.started_ns is None


def test_call_is_cancelled_while_its_child_loads() -> None:
    with Executor(
        launcher="spawn", source=Source(warm_up=HERE + "loads_for_ever"), standby=0
    ) as executor:
        call_id = executor.submit(Call.of(calls.mark))
        executor.tend()
        assert executor.running == 1

        executor.cancel(call_id)
        (report,) = collect(executor, 1)

    assert report.outcome is Outcome.CANCELLED


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def peaks_under_a_large_parent() -> list[int | None]:
    ballast = b"x" * (300 << 20)
    source = Source(preload=("tests.calls",))
    peaks = [spawned(Call.of(each), source).peak_rss_bytes for each in (calls.mark, dies)]
    del ballast
    return peaks


def test_peak_of_a_child_is_not_that_of_its_parent() -> None:
    """The kernel's high-water mark of a process begins with what was there before exec."""
    with Executor(launcher="fork", standby=0) as executor:
        executor.submit(Call.of(peaks_under_a_large_parent))
        (report,) = collect(executor, 1)
    assert report.outcome is Outcome.RETURNED, report.message
    of_returned, of_killed = load_value(report)

    assert 5 << 20 < of_returned < 200 << 20
    assert of_killed is None
