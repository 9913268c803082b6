"""When a worker looks into the queue."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import InterfaceError, OperationalError, connection

from dayfly import queue
from dayfly.worker import wakeup as module
from dayfly.worker.wakeup import MIN_PAUSE_SECONDS, DataVersion, Notifications, Wakeup, for_database
from tests import tasks
from tests.helpers import eventually
from tests.worker.conftest import Clock


@pytest.fixture
def clock(clock_of: Callable[[str], Clock]) -> Clock:
    return clock_of("dayfly.worker.wakeup")


def pauses(wakeup: Wakeup, clock: Clock, count: int) -> list[float]:
    """Look *count* times without finding anything; return the pauses in between."""
    found = []
    for _ in range(count):
        wakeup.found(anything=False)
        found.append(wakeup.seconds_to_next())
        clock.now += found[-1] + 1e-9
        assert wakeup.is_due()
    return found


def test_first_look_is_due_at_once(clock: Clock) -> None:
    wakeup = Wakeup("default", 1.0)

    assert wakeup.is_due()
    assert wakeup.seconds_to_next() == 0


def test_pauses_double_up_to_the_interval(clock: Clock) -> None:
    found = pauses(Wakeup("default", 1.0), clock, 10)

    assert found[:3] == pytest.approx([MIN_PAUSE_SECONDS * 2**power for power in range(3)])
    assert found[-1] == pytest.approx(1.0)
    assert max(found) <= 1.0 + 1e-6


def test_interval_of_nothing_does_not_make_an_idle_worker_spin(clock: Clock) -> None:
    assert pauses(for_database("default", interval=0, notify=True), clock, 3)[-1] > 0


def test_work_makes_it_look_at_once_and_often(clock: Clock) -> None:
    wakeup = Wakeup("default", 1.0)
    pauses(wakeup, clock, 10)

    wakeup.found(anything=True)

    assert wakeup.is_due()
    assert pauses(wakeup, clock, 1) == pytest.approx([MIN_PAUSE_SECONDS])


def test_hurry_brings_the_next_look_forward_and_never_back(clock: Clock) -> None:
    wakeup = Wakeup("default", 30.0)
    pauses(wakeup, clock, 15)
    wakeup.found(anything=False)

    wakeup.hurry(clock.now + 2)
    assert wakeup.seconds_to_next() == pytest.approx(2)
    wakeup.hurry(clock.now + 9)
    assert wakeup.seconds_to_next() == pytest.approx(2)


def test_short_interval_is_kept(clock: Clock) -> None:
    assert max(pauses(Wakeup("default", 0.005), clock, 8)) <= 0.01


def test_each_database_has_its_way() -> None:
    kinds = {"postgresql": Notifications, "sqlite": DataVersion, "mysql": Wakeup}

    assert type(for_database("default", interval=1, notify=True)) is kinds[connection.vendor]


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="asks PRAGMA data_version")
class TestDataVersion:
    def test_commit_of_another_connection_makes_a_look_due(self, clock: Clock) -> None:
        wakeup = DataVersion("default", 30.0)
        wakeup.connect()
        assert wakeup.is_due()
        wakeup.is_due()
        wakeup.found(anything=False)
        clock.now += 1
        wakeup.is_due()  # the first number that is known
        clock.now += 1
        assert not wakeup.is_due()

        write_from_another_connection()

        clock.now += 1
        assert wakeup.is_due()

    def test_interval_makes_a_look_due_anyway(self, clock: Clock) -> None:
        wakeup = DataVersion("default", 30.0)
        wakeup.found(anything=False)
        clock.now += 1
        wakeup.is_due()
        clock.now += 1
        assert not wakeup.is_due()
        clock.now += 30

        assert wakeup.is_due()


def write_from_another_connection() -> None:
    import sqlite3

    other = sqlite3.connect(connection.settings_dict["NAME"])
    other.execute("CREATE TABLE something (number)")
    other.execute("DROP TABLE something")
    other.commit()
    other.close()


def end_connection(pid: int) -> None:
    """Have PostgreSQL end the connection of its process *pid*, and wait until it has."""
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
            assert cursor.fetchone() == (True,)
    finally:
        other.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="needs LISTEN and NOTIFY")
class TestNotifications:
    def test_notification_makes_a_look_due_and_another_soon_after(self) -> None:
        wakeup = Notifications("default", 30.0)
        connection.ensure_connection()
        wakeup.connect()
        wakeup.found(anything=False)
        assert not wakeup.is_due()

        tasks.add.enqueue(1, 2)

        eventually(wakeup.is_due)
        wakeup.found(anything=False)
        assert wakeup.seconds_to_next() < 1
        eventually(wakeup.is_due)
        wakeup.found(anything=False)
        assert wakeup.seconds_to_next() > 25

    def test_descriptor_is_that_of_the_connection(self) -> None:
        wakeup = Notifications("default", 30.0)
        connection.ensure_connection()
        assert wakeup.fileno() == connection.connection.fileno()
        connection.close()
        assert wakeup.fileno() is None

    def test_connection_that_the_server_ends_is_an_error_that_the_store_knows(self) -> None:
        """Read by the driver itself, the end of a connection is the driver's own exception."""
        wakeup = Notifications("default", 30.0)
        connection.ensure_connection()
        wakeup.connect()
        end_connection(connection.connection.info.backend_pid)

        try:
            with pytest.raises((OperationalError, InterfaceError)):
                eventually(lambda: wakeup.is_due() and wakeup.fileno() is None)
        finally:
            connection.close()

    def test_channel_is_that_of_the_queue(self) -> None:
        assert module.NOTIFY_CHANNEL == queue.NOTIFY_CHANNEL
