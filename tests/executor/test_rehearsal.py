"""What a template goes through before its first fork."""

from __future__ import annotations

import gc
import socket

import pytest

from dayfly.executor import Call, Executor, Outcome, Source, Terms, load_value
from dayfly.executor.child import Life, when_recorded
from dayfly.executor.rehearsal import TIMES, _go_through, rehearse
from tests.helpers import collect

SOURCE = Source(preload=("tests.calls",))
seen: list[str] = []


def notes(payload: bytes) -> bytes:
    """Leave a trace, now and when it is recorded."""
    seen.append("called")
    when_recorded(lambda: seen.append("recorded"))
    return b"done"


def go_through_notes() -> tuple[bytes, list[str]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        life = Life(theirs, Terms(), None)
        frame = _go_through(Call(target=f"{__name__}.notes"), ours, life)
    assert frame is not None
    assert frame.head["failure"] is None
    return frame.body, seen


def rehearse_failing() -> int:
    rehearse(Terms(rehearsal=Call(target="tests.calls.there_is_none")))
    return gc.get_freeze_count()


def test_a_whole_call_is_gone_through(executor: Executor) -> None:
    executor.submit(Call.of(go_through_notes))

    (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RETURNED, report.message
    assert load_value(report) == (b"done", ["called", "recorded"])


def test_rehearsal_that_fails_does_no_harm(executor: Executor) -> None:
    executor.submit(Call.of(rehearse_failing))

    (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RETURNED, report.message
    assert load_value(report) > 0


@pytest.mark.parametrize("launcher", ["copy", "template"])
def test_children_find_it_done_and_are_new_all_the_same(launcher: str) -> None:
    terms = Terms(rehearsal=Call(target=f"{__name__}.notes"))
    with Executor(launcher=launcher, source=SOURCE, terms=terms, standby=0) as executor:
        executor.submit(Call.of(what_is_left))
        executor.submit(Call.of(what_is_left))
        reports = collect(executor, 2)

    for report in reports:
        assert report.child_index == 1
        assert load_value(report) == (TIMES, TIMES)


def what_is_left() -> tuple[int, int]:
    return seen.count("called"), seen.count("recorded")


def test_no_rehearsal_where_the_host_itself_forks() -> None:
    terms = Terms(rehearsal=Call(target=f"{__name__}.notes"))
    with Executor(launcher="fork", terms=terms, standby=0) as executor:
        executor.submit(Call.of(what_is_left))
        (report,) = collect(executor, 1)

    assert load_value(report) == (0, 0)
