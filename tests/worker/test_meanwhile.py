"""Children are looked after while PostgreSQL works on a statement."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from django.db import OperationalError, connection

from dayfly.executor import Call, Executor, Limits, Outcome
from dayfly.worker.meanwhile import leave_alone, look_after_children
from tests import calls
from tests.helpers import collect, eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor != "postgresql" or find_spec("psycopg") is None,
        reason="psycopg 3 alone lets us wait for two things",
    ),
]


@pytest.fixture
def executor() -> Iterator[Executor]:
    connection.ensure_connection()
    with Executor(concurrency=1) as executor:
        look_after_children(connection.connection, executor)
        yield executor
    leave_alone(connection.connection)


def sleep_in_the_database(seconds: float) -> float:
    """Return when the database was done, in nanoseconds of the monotonic clock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [seconds])
        assert cursor.fetchall() == [("",)]
    return time.monotonic_ns()


def test_calls_are_handed_out_one_after_the_other_during_a_statement(executor: Executor) -> None:
    for _ in range(5):
        executor.submit(Call.of(calls.returns, 1))
    reports = executor.poll(timeout=0)

    done_ns = sleep_in_the_database(3)

    assert executor.waiting == 0
    reports += executor.poll(timeout=0)
    assert [report.outcome for report in reports] == [Outcome.RETURNED] * 5
    assert max(report.finished_ns for report in reports) < done_ns


def test_report_that_waits_to_be_taken_does_not_keep_the_worker_busy(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken when the statement is over; until then, there is nothing to do."""
    looks = 0
    tend = executor.tend

    def count() -> None:
        nonlocal looks
        looks += 1
        tend()

    monkeypatch.setattr(executor, "tend", count)
    executor.submit(Call.of(calls.returns, 1))
    executor.poll(timeout=0)

    sleep_in_the_database(1)

    assert executor.seconds_to_next_event() == 0, "the report is there"
    assert 0 < looks < 50
    collect(executor, 1)


def test_limit_of_time_acts_during_a_statement(executor: Executor) -> None:
    executor.submit(Call.of(time.sleep, 60, limits=Limits(timeout_seconds=0.5, grace_seconds=0.5)))
    executor.poll(timeout=0)

    done_ns = sleep_in_the_database(3)

    (report,) = executor.poll(timeout=0)
    assert report.outcome is Outcome.TIMED_OUT
    assert report.finished_ns < done_ns


def test_statement_larger_than_the_socket_arrives_whole(executor: Executor) -> None:
    text = "ä" * 5_000_000
    with connection.cursor() as cursor:
        cursor.execute("SELECT length(%s), %s", [text, text])
        assert cursor.fetchone() == (len(text), text)


def test_error_of_a_statement_is_that_of_the_database(executor: Executor) -> None:
    from django.db import ProgrammingError

    with pytest.raises(ProgrammingError, match="nowhere"), connection.cursor() as cursor:
        cursor.execute("SELECT * FROM nowhere")
    assert sleep_in_the_database(0)


def test_end_of_the_connection_is_noticed(executor: Executor) -> None:
    other = connection.copy()
    pid = connection.connection.info.backend_pid
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
        with pytest.raises(OperationalError):
            eventually(lambda: sleep_in_the_database(0) and False)
    finally:
        other.close()
        connection.close()


def test_interrupted_statement_leaves_a_connection_that_works(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-C in a host that handles signals itself."""

    def interrupt() -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    executor.submit(Call.of(calls.waits))
    executor.poll(timeout=0)
    monkeypatch.setattr(executor, "tend", interrupt)
    executor.stop(grace_seconds=0.1)

    with pytest.raises(KeyboardInterrupt):
        sleep_in_the_database(60)

    assert sleep_in_the_database(0)
    collect(executor, 1)


def test_host_goes_on_with_its_connection_as_it_was(executor: Executor) -> None:
    driver = connection.connection

    leave_alone(driver)
    executor.close()

    assert "wait" not in vars(driver)
    assert sleep_in_the_database(0)


def test_other_drivers_are_left_as_they_are() -> None:
    class Driver:
        """Like psycopg2's connection, say."""

    driver = Driver()
    with Executor(standby=0) as executor:
        look_after_children(driver, executor)

    assert vars(driver) == {}
    leave_alone(driver)
    leave_alone(None)
