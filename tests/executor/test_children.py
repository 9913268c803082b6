"""The registry, without a process: it is told events and the time."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from dayfly.executor import AfterCalls, Call, Limits, Outcome
from dayfly.executor.children import Child, Children, State
from dayfly.executor.wire import Reader

NOW = 1_000.0


@pytest.fixture
def channel() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as one:
        yield one


@pytest.fixture
def children(channel: socket.socket) -> Children:
    registry = Children()
    for pid in (11, 12):
        registry.add(newborn(pid, channel))
    return registry


def newborn(pid: int, channel: socket.socket) -> Child:
    return Child(
        pid=pid,
        pidfd=None,
        channel=channel,
        output_fd=-1,
        reader=Reader(100),
        calls_allowed=AfterCalls(2).calls_for_new_child(),
        fork_seconds=0.0,
        parent_before_fork=None,
    )


def dispatch(children: Children, limits: Limits | None = None) -> Child:
    child = children.standby()
    assert child is not None
    call = Call(call_id=f"call-{child.pid}", limits=limits or Limits())
    children.dispatch(child, call, now=NOW, now_ns=7)
    return child


def test_child_that_waited_longest_gets_the_call(children: Children) -> None:
    assert [dispatch(children).pid, dispatch(children).pid] == [11, 12]
    assert children.standby() is None
    assert children.count(State.BUSY) == 2


def test_dispatch_starts_the_clock(children: Children) -> None:
    child = dispatch(children, Limits(timeout_seconds=0.5))

    assert (child.deadline, child.dispatched_ns, child.calls_served) == (NOW + 0.5, 7, 1)
    assert children.next_event() == NOW + 0.5
    assert children.due(NOW + 0.4) == []
    assert children.due(NOW + 0.5) == [child]


def test_call_without_a_limit_has_samples_only(children: Children) -> None:
    child = dispatch(children)

    assert child.deadline is None
    assert children.next_event() == NOW + 1.0
    assert children.samples_due(NOW + 0.9) == []
    assert children.samples_due(NOW + 1.0) == [child]


def test_running_finds_the_call_until_it_is_reported(children: Children) -> None:
    child = dispatch(children)
    assert children.running("call-11") is child
    assert children.running("unknown") is None

    children.reported(child, waits=True, keep=True, now=NOW, leave=3)

    assert child.state is State.STANDBY
    assert children.running("call-11") is None
    assert children.waiting_for("call-11") is child
    children.recorded(child, "call-11", stands=True, now=NOW, leave=3)
    assert child.state is State.STANDBY
    assert children.waiting_for("call-11") is None


def test_child_leaves_when_its_last_report_is_recorded(children: Children) -> None:
    child = dispatch(children)

    children.reported(child, waits=True, keep=False, now=NOW, leave=3)
    assert child.state is State.REPORTED
    assert children.next_event() is None

    children.recorded(child, "call-11", stands=True, now=NOW, leave=3)
    assert child.state is State.LEAVING
    assert children.due(NOW + 3) == [child]


def test_busy_child_need_not_hear_what_was_refused(children: Children) -> None:
    child = dispatch(children)
    children.reported(child, waits=True, keep=True, now=NOW, leave=3)
    dispatch(children)

    children.recorded(child, "call-11", stands=False, now=NOW, leave=3)

    assert not child.unrecorded
    assert not child.unheard


def test_busy_child_has_not_heard_yet_what_was_recorded(children: Children) -> None:
    child = dispatch(children)
    children.reported(child, waits=True, keep=True, now=NOW, leave=3)
    dispatch(children)

    children.recorded(child, "call-11", stands=True, now=NOW, leave=3)
    assert (child.unrecorded, child.unheard) == (set(), {"call-11"})

    children.reported(child, waits=False, keep=True, now=NOW, leave=3)
    assert child.unheard == set()


def test_child_that_is_not_kept_has_a_time_to_leave(children: Children) -> None:
    child = dispatch(children)

    children.reported(child, waits=False, keep=False, now=NOW, leave=3)

    assert child.state is State.LEAVING
    assert children.due(NOW + 3) == [child]


def test_last_call_is_known(children: Children) -> None:
    child = dispatch(children)
    assert not child.is_last_call
    children.reported(child, waits=False, keep=True, now=NOW, leave=3)

    assert dispatch(children) is child
    assert child.is_last_call


def test_next_call_starts_with_a_clean_slate(children: Children) -> None:
    child = dispatch(children, Limits(timeout_seconds=1))
    child.ending = Outcome.STOPPED
    child.complaint = "it complained"
    children.reported(child, waits=False, keep=True, now=NOW, leave=3)

    dispatch(children)

    assert (child.ending, child.complaint, child.deadline) == (None, None, None)


def test_registry_may_shrink_while_it_is_walked(children: Children) -> None:
    for child in children:
        children.remove(child)

    assert len(children) == 0
    assert children.next_event() is None
