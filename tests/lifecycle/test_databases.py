"""The worker's connection, and those of its children: nobody speaks on another's."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import Group
from django.db import connection, transaction

from dayfly.compat import TaskResultStatus
from dayfly.exceptions import ResultRefused
from dayfly.models import Job, Run, Worker
from dayfly.queue.database import from_uuid
from tests.helpers import alive, eventually
from tests.lifecycle import tasks
from tests.workers import (
    SHORT_LEASE,
    altered,
    finished,
    gone,
    job_of,
    outcomes_of,
    run_worker,
    running_worker,
    runs_of,
    waits_for,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("per_child", [1, 10])
def test_rows_that_children_write_are_all_there(per_child: int) -> None:
    """On SQLite, a child that inherits its parent's locks writes into the file beside others."""
    with transaction.atomic():
        for number in range(150):
            tasks.counts_in_the_database.enqueue(str(number))

    run_worker("--batch", "--concurrency=2", f"--max-tasks-per-child={per_child}")

    assert Group.objects.count() == 150
    assert set(Run.objects.values_list("outcome", flat=True)) == {"returned"}
    assert Job.objects.filter(status="SUCCESSFUL").count() == 150


def drop_worker_connections() -> int:
    """Have the server end all connections to this database but ours; return how many."""
    find, end = {
        "postgresql": (
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            "SELECT pg_terminate_backend(%s)",
        ),
        "mysql": (
            "SELECT id FROM information_schema.processlist"
            " WHERE db = DATABASE() AND id <> CONNECTION_ID()",
            "KILL CONNECTION %s",
        ),
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(find)
        found = [row[0] for row in cursor.fetchall()]
        for each in found:
            cursor.execute(end, [each])
    return len(found)


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has no server to hang up")
def test_connection_that_is_dropped_during_a_drain_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with transaction.atomic():
        for number in range(600):
            tasks.appends.enqueue(str(path), number)

    with running_worker("--batch", "--concurrency=2", "--max-tasks-per-child=20") as worker:
        dropped = 0
        for done in (50, 200, 400):
            eventually(lambda done=done: Run.objects.count() >= done, within=60)
            dropped += drop_worker_connections()
        assert worker.ends(within=60) == 0

    assert dropped >= 3
    assert "The database is back after" in worker.log()
    assert Counter(path.read_text().split()) == {str(number): 1 for number in range(600)}
    assert set(Job.objects.values_list("status", "attempts", "epoch")) == {("SUCCESSFUL", 1, 1)}
    assert set(Run.objects.values_list("outcome", flat=True)) == {"returned"}
    assert Run.objects.count() == 600


def test_statement_that_fails_ends_neither_worker_nor_task(tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    result = tasks.waits.enqueue(str(mark), str(go))
    with running_worker("--concurrency=1", options=SHORT_LEASE) as worker:
        child = waits_for(mark)
        with altered(
            "ALTER TABLE dayfly_job RENAME TO dayfly_elsewhere",
            "ALTER TABLE dayfly_elsewhere RENAME TO dayfly_job",
        ):
            go.touch()
            worker.says("The database cannot be used")
        finished(result)
        after = tasks.returns.enqueue()
        finished(after)
        assert worker.stops() == 0

    assert [(run.outcome, str(run.child_pid)) for run in runs_of(result)] == [("returned", child)]


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="alters a database of PostgreSQL's")
def test_failover_to_a_standby_ends_neither_worker_nor_task(tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    name = connection.ops.quote_name(connection.settings_dict["NAME"])
    result = tasks.waits.enqueue(str(mark), str(go))
    with running_worker("--concurrency=1", options=SHORT_LEASE) as worker:
        child = waits_for(mark)
        with altered(
            f"ALTER DATABASE {name} SET default_transaction_read_only = on",
            f"ALTER DATABASE {name} RESET default_transaction_read_only",
        ):
            drop_worker_connections()
            go.touch()
            worker.says("The database cannot be used: cannot execute")
        finished(result)
        assert worker.stops() == 0

    assert [(run.outcome, str(run.child_pid)) for run in runs_of(result)] == [("returned", child)]
    # Until it writes, it is not back.
    assert worker.log().count("The database is back") == 1


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="alters a column of MariaDB's")
def test_text_that_its_column_does_not_take_costs_the_output_alone() -> None:
    smiles = tasks.prints.enqueue("\N{GRINNING FACE}")
    others = [tasks.returns.enqueue(number) for number in range(5)]

    with altered(
        "ALTER TABLE dayfly_run MODIFY output LONGTEXT CHARACTER SET utf8mb3 NOT NULL",
        "ALTER TABLE dayfly_run MODIFY output LONGTEXT CHARACTER SET utf8mb4 NOT NULL",
    ):
        log = run_worker("--batch", "--concurrency=2")

    (run,) = runs_of(smiles)
    assert (run.outcome, run.output) == (
        "returned",
        "(not recorded: the database refused the row with it)",
    )
    assert [outcomes_of(each) for each in others] == [["returned"]] * 5
    assert set(Job.objects.values_list("status", flat=True)) == {"SUCCESSFUL"}
    assert "The database refused a row: " in log
    assert "The database cannot be used" not in log


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite adds no constraint to a table")
def test_result_that_the_database_refuses_fails_its_job_alone() -> None:
    much = tasks.returns_much.enqueue(1_000)
    others = [tasks.returns.enqueue(number) for number in range(5)]

    with altered(
        "ALTER TABLE dayfly_job ADD CONSTRAINT short CHECK (CHAR_LENGTH(return_value) < 1000)",
        "ALTER TABLE dayfly_job DROP CONSTRAINT short",
    ):
        log = run_worker("--batch", "--concurrency=2")

    is_refused(much)
    assert [outcomes_of(each) for each in others] == [["returned"]] * 5
    assert "failed (raised): What tests.lifecycle.tasks.returns_much returned" in log


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="MariaDB hangs up after a large packet")
def test_result_that_mysql_hangs_up_on_fails_its_job_alone() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@max_allowed_packet")
        (limit,) = cursor.fetchone()
    if limit > 100_000_000:
        pytest.skip("the server takes any result that a test would return")
    much = tasks.returns_much.enqueue(limit)
    others = [tasks.returns.enqueue(number) for number in range(5)]

    run_worker("--batch", "--concurrency=2", options={"MAX_RESULT_BYTES": 2 * limit})

    is_refused(much)
    assert [outcomes_of(each) for each in others] == [["returned"]] * 5


def is_refused(result: Any) -> None:
    result.refresh()
    assert result.status == TaskResultStatus.FAILED
    (error,) = result.errors
    assert error.exception_class is ResultRefused
    assert "refused by the database" in error.traceback


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has no server to hang up")
def test_idle_worker_listens_again_on_a_new_connection() -> None:
    with running_worker("--concurrency=1", "--interval=1", options=SHORT_LEASE) as worker:
        drop_worker_connections()
        worker.says("The database is back after")
        result = tasks.returns.enqueue()
        finished(result)

    assert runs_of(result)[0].outcome == "returned"


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="an option file of MySQL's client")
def test_worker_comes_back_where_settings_name_a_file_of_its_directory(tmp_path: Path) -> None:
    """It sits in the root directory, and connects from where it was started."""
    port = connection.settings_dict["PORT"] or 3306
    (tmp_path / "client.cnf").write_text(f"[client]\nport={port}\n")
    changes = json.dumps({"PORT": "", "OPTIONS": {"read_default_file": "./client.cnf"}})
    with running_worker(
        "--interval=1",
        cwd=tmp_path,
        DAYFLY_TEST_DATABASE_CHANGES=changes,
        MYSQL_TCP_PORT="1",  # where it would go without the file
    ) as worker:
        drop_worker_connections()
        worker.says("The database is back after")
        assert worker.stops() == 0


@pytest.mark.skipif(
    connection.vendor != "postgresql" or find_spec("psycopg") is None,
    reason="psycopg 3 alone lets us wait for two things",
)
def test_limit_of_time_acts_while_the_database_does_not_answer(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    options = {**SHORT_LEASE, "TIMEOUT_SECONDS": 4, "KILL_GRACE_SECONDS": 1}
    result = tasks.waits.enqueue(str(mark))
    with running_worker("--concurrency=1", "--interval=1", options=options) as worker:
        child = int(waits_for(mark))
        with answering_no_heartbeat():
            eventually(is_somebody_kept_waiting)
            assert alive(child)
            gone(child, within=20)
            assert is_somebody_kept_waiting()
            drop_worker_connections()
        finished(result)
        assert worker.stops() == 0

    assert outcomes_of(result) == ["timed_out"]


@contextmanager
def triggered(event: str, body: str) -> Iterator[None]:
    """Have PostgreSQL do something before each *event* on the row of a worker."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION of_test() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN {body}; RETURN new; END $$"
        )
        cursor.execute(
            f"CREATE TRIGGER of_test BEFORE {event} ON dayfly_worker"
            " FOR EACH ROW EXECUTE FUNCTION of_test()"
        )
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER of_test ON dayfly_worker")
            cursor.execute("DROP FUNCTION of_test")


def answering_no_heartbeat() -> AbstractContextManager[None]:
    """Have the server take a minute for each heartbeat."""
    return triggered("UPDATE", "PERFORM pg_sleep(60)")


def is_somebody_kept_waiting() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        return bool(cursor.fetchone()[0])


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite locks files, not rows")
def test_row_that_another_session_holds_locked_keeps_up_nothing_else(tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    result = tasks.waits.enqueue(str(mark), str(go))
    with running_worker("--concurrency=2", options=SHORT_LEASE) as worker:
        waits_for(mark)
        with holding_locked(result):
            go.touch()
            worker.says(f"id={result.id} waits: another session holds locks on its rows")
            others = [tasks.returns.enqueue(number) for number in range(5)]
            finished(*others)
            beats = worker.log().count("Heartbeat")
            worker.says("Heartbeat", times=beats + 4)  # a lease and more
            assert job_of(result).status == "RUNNING"
            worker.signal(signal.SIGTERM)
            worker.says("Stopping: no more claims")
        assert worker.ends() == 0

    assert outcomes_of(result) == ["returned"]
    assert job_of(result).status == "SUCCESSFUL"
    assert worker.log().count("waits: another session holds locks") == 1
    assert "cannot be used" not in worker.log()


@contextmanager
def holding_locked(result: Any) -> Iterator[None]:
    """Be the session that has changed the job's row, and does not commit."""
    other = connection.copy()
    other.set_autocommit(False)
    try:
        with other.cursor() as cursor:
            id_ = from_uuid(other, UUID(result.id))
            cursor.execute("SELECT id FROM dayfly_job WHERE id = %s FOR UPDATE", [id_])
            assert cursor.fetchone()
        yield
    finally:
        other.close()


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite locks files, not tables")
def test_worker_hears_that_it_is_to_stop_while_its_tables_are_locked() -> None:
    lock, unlock = {
        "postgresql": ("BEGIN; LOCK TABLE dayfly_job, dayfly_worker", "COMMIT"),
        "mysql": ("LOCK TABLES dayfly_job WRITE, dayfly_worker WRITE", "UNLOCK TABLES"),
    }[connection.vendor]
    with running_worker("--concurrency=1", options=SHORT_LEASE) as worker:
        with altered(lock, unlock):
            worker.says("The database cannot be used")
        worker.says("The database is back after")
        with altered(lock, unlock):
            assert worker.stops() == 0


def test_worker_records_its_runs_where_the_project_switches_autocommit_off() -> None:
    results = [tasks.returns.enqueue() for _ in range(3)]

    run_worker("--batch", DAYFLY_TEST_DATABASE_CHANGES='{"AUTOCOMMIT": false}')

    assert [outcomes_of(result) for result in results] == [["returned"]] * 3


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="a trigger of PostgreSQL's")
def test_worker_that_registers_anew_tries_again_when_the_database_goes_away() -> None:
    with running_worker("--concurrency=1", options=SHORT_LEASE) as worker:
        with hanging_up_on_the_next_registration():
            Worker.objects.update(lost_at="2000-01-01 00:00:00+00:00")
            worker.says("starts anew")
            worker.says("The database is back after")
        finished(tasks.returns.enqueue())
        assert worker.stops() == 0

    assert worker.log().count("starts anew") == 1
    assert Worker.objects.count() == 2


@contextmanager
def hanging_up_on_the_next_registration() -> Iterator[None]:
    """Have the server end a connection that inserts a worker, once."""
    # A sequence, as it counts on when the transaction that called it is gone.
    hang_up = (
        "IF nextval('registrations') = 1 THEN"
        " PERFORM pg_terminate_backend(pg_backend_pid()); END IF"
    )
    with (
        altered("CREATE SEQUENCE registrations", "DROP SEQUENCE registrations"),
        triggered("INSERT", hang_up),
    ):
        yield


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="asks SQLite whether its file is whole")
def test_file_is_whole_afterwards() -> None:
    with transaction.atomic():
        for number in range(100):
            tasks.counts_in_the_database.enqueue(str(number))

    run_worker("--batch", "--concurrency=2")

    with connection.cursor() as cursor:
        cursor.execute("PRAGMA integrity_check")
        assert cursor.fetchall() == [("ok",)]


@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="a file has no name on a server")
def test_file_that_is_named_by_a_uri_is_found() -> None:
    result = tasks.uses_the_database.enqueue()

    run_worker(
        "--batch", DAYFLY_TEST_DATABASE_NAME=f"file:{connection.settings_dict['NAME']}?mode=rwc"
    )

    assert outcomes_of(result) == ["returned"]
