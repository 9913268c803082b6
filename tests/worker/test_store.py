"""The queue's verbs over a connection that goes away and comes back."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.db.utils import (
    DatabaseError,
    DataError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
)

from dayfly.worker import store as module
from dayfly.worker.store import (
    MAX_PAUSE_SECONDS,
    STEADY_SECONDS,
    ConnectionBroke,
    DatabaseAway,
    Store,
)
from tests.worker.conftest import Clock


class Wrapper:
    """Stands in for Django's wrapper of a connection."""

    alias = "default"

    def __init__(self, vendor: str = "postgresql") -> None:
        self.vendor = vendor
        self.connection: object | None = None
        self.close_at: float | None = 5.0
        self.is_up = True
        self.is_broken = False
        self.opened = 0

    def ensure_connection(self) -> None:
        if not self.is_up:
            raise OperationalError("connection refused\n")
        if self.connection is None:
            self.connection = object()
            self.is_broken = False
            self.opened += 1

    def is_usable(self) -> bool:
        return not self.is_broken

    def close(self) -> None:
        self.connection = None


class Connections(dict):  # type: ignore[type-arg]
    def all(self, *, initialized_only: bool = False) -> list[Wrapper]:
        return list(self.values())


@pytest.fixture
def clock(clock_of: Callable[[str], Clock]) -> Clock:
    return clock_of("dayfly.worker.store")


@pytest.fixture
def at_hand(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A store, the wrapper below it, and what it called."""
    wrapper, calls = Wrapper(), []
    monkeypatch.setattr(module, "connections", Connections(default=wrapper))
    store = Store(
        "default",
        on_return=lambda: calls.append("return"),
        on_reopen=lambda: calls.append("reopen"),
    )
    return SimpleNamespace(store=store, wrapper=wrapper, calls=calls, clock=clock)


def fails(error: Exception) -> Callable[[], Any]:
    def verb() -> None:
        raise error

    return verb


def test_first_verb_connects_and_later_ones_do_not(at_hand: SimpleNamespace) -> None:
    assert at_hand.store.call(lambda: 1) == 1
    assert at_hand.store.call(lambda: 2) == 2

    assert at_hand.calls == ["return"]
    assert at_hand.wrapper.opened == 1
    assert at_hand.wrapper.close_at is None


@pytest.mark.parametrize("kind", [OperationalError, InterfaceError])
def test_lost_connection_is_told_as_one_error(
    at_hand: SimpleNamespace, kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    at_hand.store.call(lambda: None)

    with pytest.raises(DatabaseAway):
        at_hand.store.call(fails(kind("server closed the connection\n")))

    assert at_hand.store.is_away
    assert at_hand.wrapper.connection is None
    assert "The database cannot be used: server closed the connection." in caplog.text


@pytest.mark.parametrize("kind", [InternalError, ProgrammingError, DatabaseError, DataError])
def test_any_error_of_the_database_is_told_as_the_same(
    at_hand: SimpleNamespace, kind: type[Exception]
) -> None:
    """A standby, a table that is being altered: no duty of a worker may end it over that."""
    with pytest.raises(DatabaseAway):
        at_hand.store.call(fails(kind("read-only")))

    assert at_hand.store.is_away


def test_refused_value_is_passed_on_to_those_who_ask(at_hand: SimpleNamespace) -> None:
    with pytest.raises(DataError):
        at_hand.store.call(fails(DataError("too long")), may_be_refused=True)

    assert not at_hand.store.is_away
    assert at_hand.store.call(lambda: 1) == 1
    assert at_hand.wrapper.opened == 1


def test_connection_that_a_refused_value_broke_is_made_anew_at_once(
    at_hand: SimpleNamespace,
) -> None:
    def too_large() -> None:
        at_hand.wrapper.is_broken = True
        raise DataError("too large")

    with pytest.raises(DataError):
        at_hand.store.call(too_large, may_be_refused=True)

    assert at_hand.store.call(lambda: 1) == 1
    assert at_hand.wrapper.opened == 2


def test_connection_that_broke_under_a_statement_is_told_apart(at_hand: SimpleNamespace) -> None:
    at_hand.store.call(lambda: None)
    with pytest.raises(ConnectionBroke):
        at_hand.store.call(fails(OperationalError("server closed the connection")))

    at_hand.clock.now += 1
    at_hand.wrapper.is_up = False
    with pytest.raises(DatabaseAway) as caught:
        at_hand.store.call(lambda: None)
    assert caught.type is DatabaseAway


def test_nothing_is_tried_during_a_pause(at_hand: SimpleNamespace) -> None:
    with pytest.raises(DatabaseAway):
        at_hand.store.call(fails(OperationalError("away")))

    tried = []
    with pytest.raises(DatabaseAway):
        at_hand.store.call(lambda: tried.append(1))
    assert tried == []

    at_hand.clock.now += at_hand.store.seconds_to_next_try()
    at_hand.store.call(lambda: tried.append(1))
    assert tried == [1]
    assert not at_hand.store.is_away
    assert at_hand.store.seconds_to_next_try() is None


def test_pauses_grow_up_to_a_limit_and_begin_anew(at_hand: SimpleNamespace) -> None:
    at_hand.wrapper.is_up = False
    pauses = []
    for _ in range(10):
        with pytest.raises(DatabaseAway):
            at_hand.store.call(lambda: None)
        pauses.append(at_hand.store.seconds_to_next_try())
        at_hand.clock.now += pauses[-1]

    assert pauses[0] < pauses[1] < pauses[2]
    assert pauses[-1] == pytest.approx(MAX_PAUSE_SECONDS)
    at_hand.wrapper.is_up = True
    at_hand.store.call(lambda: None)
    at_hand.clock.now += STEADY_SECONDS
    with pytest.raises(DatabaseAway):
        at_hand.store.call(fails(OperationalError("again")))
    assert at_hand.store.seconds_to_next_try() == pytest.approx(pauses[0])


def test_pauses_grow_on_when_it_fails_again_right_after_its_return(
    at_hand: SimpleNamespace,
) -> None:
    """What takes connections and does nothing else is not back."""
    pauses = []
    for _ in range(10):
        at_hand.store.call(lambda: None)
        with pytest.raises(DatabaseAway):
            at_hand.store.call(fails(OperationalError("no")))
        pauses.append(at_hand.store.seconds_to_next_try())
        at_hand.clock.now += pauses[-1]

    assert pauses[0] < pauses[1] < pauses[2]
    assert pauses[-1] == pytest.approx(MAX_PAUSE_SECONDS)


def test_outage_is_told_once_and_its_end_once(
    at_hand: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    at_hand.wrapper.is_up = False
    for _ in range(3):
        with pytest.raises(DatabaseAway):
            at_hand.store.call(lambda: None)
        at_hand.clock.now += 10
    at_hand.wrapper.is_up = True
    at_hand.store.call(lambda: None)

    assert caplog.text.count("The database cannot be used") == 1
    assert caplog.text.count("The database is back after 30.0 s") == 1


def test_another_reason_during_the_same_outage_is_told(
    at_hand: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    for words in ("hung up", "read-only", "read-only"):
        with pytest.raises(DatabaseAway):
            at_hand.store.call(fails(InternalError(words)))
        at_hand.clock.now += 10

    assert [record.args[0] for record in caplog.records] == [
        "The database cannot be used: hung up.",
        "The database cannot be used: read-only.",
    ]


def test_each_new_connection_is_told_before_the_verb(at_hand: SimpleNamespace) -> None:
    with pytest.raises(DatabaseAway):
        at_hand.store.call(fails(OperationalError("away")))
    at_hand.clock.now += 1

    at_hand.store.call(lambda: at_hand.calls.append("verb"))

    assert at_hand.calls == ["return", "return", "verb"]


def test_sqlite_is_closed_before_a_fork_and_opened_again(at_hand: SimpleNamespace) -> None:
    at_hand.wrapper.vendor = "sqlite"
    at_hand.store.call(lambda: None)

    at_hand.store.part_from_sqlite()
    assert at_hand.wrapper.connection is None
    at_hand.store.part_from_sqlite()
    at_hand.store.call(lambda: at_hand.calls.append("verb"))

    assert at_hand.calls == ["return", "reopen", "verb"]
    assert not at_hand.store.is_away


def test_other_databases_stay_open_across_forks(at_hand: SimpleNamespace) -> None:
    at_hand.store.call(lambda: None)

    at_hand.store.part_from_sqlite()

    assert at_hand.wrapper.connection is not None


def test_connection_that_is_lost_after_parting_is_a_new_one(at_hand: SimpleNamespace) -> None:
    at_hand.wrapper.vendor = "sqlite"
    at_hand.store.call(lambda: None)
    at_hand.store.part_from_sqlite()
    at_hand.wrapper.is_up = False
    with pytest.raises(DatabaseAway):
        at_hand.store.call(lambda: None)
    at_hand.wrapper.is_up = True
    at_hand.clock.now += 1

    at_hand.store.call(lambda: None)

    assert at_hand.calls == ["return", "return"]
