"""What the parent makes of a report frame: every field may be anything."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from dayfly.executor import Call, Outcome
from dayfly.executor.children import Child
from dayfly.executor.deaths import decode_status, signal_name
from dayfly.executor.reports import from_frame
from dayfly.executor.wire import REPORT, Frame, Garbage, Reader


@pytest.fixture
def child() -> Iterator[Child]:
    with socket.socket(socket.AF_UNIX) as channel:
        yield Child(
            pid=11,
            pidfd=None,
            channel=channel,
            output_fd=-1,
            reader=Reader(100),
            calls_allowed=1,
            fork_seconds=0.001,
            parent_before_fork=None,
            call=Call(call_id="c1"),
            calls_served=1,
        )


def frame(**changed: Any) -> Frame:
    head = {
        "id": "c1",
        "failure": None,
        "cause": None,
        "started_ns": 1,
        "finished_ns": 2,
        "memory_start": [10, 5, None, None],
        "memory_end": None,
        "peak_rss_bytes": 20,
        "usage": [0.1, 0, 3, 4],
        "new_modules": 0,
    }
    return Frame(REPORT, {**head, **changed}, b"value")


def test_good_frame_becomes_a_report(child: Child) -> None:
    report = from_frame(child, frame())

    assert (report.outcome, report.value, report.peak_rss_bytes) == (Outcome.RETURNED, b"value", 20)
    assert report.memory_start is not None
    assert (report.memory_start.rss_bytes, report.memory_start.uss_bytes) == (10, None)
    assert report.memory_end is None
    assert report.usage is not None
    assert (report.usage.user_seconds, report.usage.major_faults) == (0.1, 4)


def test_failure_without_a_message_is_named_by_its_class(child: Child) -> None:
    report = from_frame(child, frame(failure=["builtins.KeyError", "", "..."]))

    assert (report.outcome, report.message, report.value) == (Outcome.RAISED, "KeyError", None)


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "another"},
        {"id": None},
        {"failure": 5},
        {"failure": []},
        {"failure": {}},
        {"failure": ["a", "b", 3]},
        {"cause": "soft_limit"},
        {"cause": "no such cause", "failure": ["a", "b", "c"]},
        {"cause": "hard_limit", "failure": ["a", "b", "c"]},
        {"cause": [], "failure": ["a", "b", "c"]},
        {"started_ns": None},
        {"started_ns": -1},
        {"finished_ns": 1.5},
        {"finished_ns": 1 << 63},
        {"peak_rss_bytes": True},
        {"memory_start": [1, 2, 3]},
        {"memory_start": ["1", 2, 3, 4]},
        {"memory_end": 7},
        {"usage": None},
        {"usage": [float("nan"), 0, 0, 0]},
        {"usage": [1e300, 0, 0, 0]},
        {"usage": [0, 0, 0.5, 0]},
        {"new_modules": "3"},
    ],
    ids=str,
)
def test_wrong_field_is_garbage(child: Child, changed: dict[str, Any]) -> None:
    with pytest.raises(Garbage):
        from_frame(child, frame(**changed))


@pytest.mark.parametrize("missing", sorted(frame().head))
def test_missing_field_is_garbage(child: Child, missing: str) -> None:
    incomplete = frame()
    del incomplete.head[missing]

    with pytest.raises(Garbage):
        from_frame(child, incomplete)


def test_text_of_a_report_can_always_be_stored(child: Child) -> None:
    report = from_frame(child, frame(failure=["a\udc80", "m\ud800", "t\udfff"]))

    assert report.failure is not None
    assert report.failure.message == "m\\ud800"
    f"{report.failure} {report.message}".encode()


def test_status_is_code_or_signal() -> None:
    assert decode_status(7 << 8) == (7, None)
    assert decode_status(signal.SIGKILL) == (None, signal.SIGKILL)


def test_signals_have_names() -> None:
    assert signal_name(signal.SIGKILL) == "SIGKILL"
    assert signal_name(40) == "signal 40"
