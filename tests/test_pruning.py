"""`manage.py dayfly prune`: what is old goes, and nothing else does."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, transaction
from django.db.models import F

from dayfly import queue
from dayfly.management import progress, prunecommand
from dayfly.models import Job, Run, Worker
from dayfly.queue.database import from_uuid
from tests.frameworks import PACKAGE
from tests.test_queue import EVERY, settle

OURS = "dayfly.backend.DatabaseBackend"
IMMEDIATE = f"{PACKAGE}.backends.immediate.ImmediateBackend"
SET = f'Set its BACKEND to "{OURS}".'

pytestmark = pytest.mark.django_db(transaction=True)

Ended = Callable[..., UUID]


@pytest.fixture
def ended(job: Any, worker: Any) -> Ended:
    """Have a job end some days ago."""
    holder = worker("holder")

    def make(days: float, status: str = "SUCCESSFUL", **fields: Any) -> UUID:
        job(**fields)
        selection = queue.Selection(backend_name=fields.get("backend_name", "default"), queues=None)
        (one,) = queue.claim(holder.id, selection, limit=1, using="default")
        settle(holder, one, status)
        finished_at = F("finished_at") - timedelta(days=days)
        Job.objects.filter(id=one.job_id).update(finished_at=finished_at)
        return one.job_id

    return make


def prune(*flags: str) -> str:
    out = io.StringIO()
    call_command("dayfly", "prune", *flags, stdout=out)
    return out.getvalue()


def left() -> set[UUID]:
    jobs = set(Job.objects.values_list("id", flat=True))
    assert set(Run.objects.values_list("job_id", flat=True)) <= jobs
    return jobs


def test_jobs_that_ended_two_weeks_ago_go_with_their_runs(ended: Ended) -> None:
    young = ended(13.9)
    ended(14.1)
    ended(300, "FAILED")

    said = prune()

    assert said == "Deleted 2 finished jobs with their runs, and 0 rows of workers.\n"
    assert left() == {young}
    assert Run.objects.count() == 1


def test_what_has_not_ended_stays_however_old(job: Any, worker: Any) -> None:
    for run_after in (None, None, datetime(2100, 1, 1, tzinfo=UTC)):
        job(run_after=run_after)
    queue.claim(worker().id, EVERY, limit=1, using="default")
    Job.objects.update(enqueued_at="2000-01-01 00:00:00+00:00")

    prune("--min-age-days=0")

    assert sorted(Job.objects.values_list("status", flat=True)) == ["READY", "RUNNING", "SCHEDULED"]


def test_failed_jobs_may_be_kept_for_longer(ended: Ended) -> None:
    ended(5)
    failed = ended(5, "FAILED")
    ended(31, "FAILED")

    prune("--min-age-days=1", "--failed-min-age-days=30")

    assert left() == {failed}


def test_failed_jobs_may_be_kept_for_less_long(ended: Ended) -> None:
    kept = ended(5)
    ended(5, "FAILED")

    prune("--min-age-days=30", "--failed-min-age-days=1")

    assert left() == {kept}


@pytest.mark.parametrize(
    ("flags", "queues"),
    [
        (["--queues=mail"], {"default", "reports"}),
        (["--queue-name", "mail, reports"], {"default"}),
        (["--queue=mail"], {"default", "reports"}),
        (["--exclude-queues=mail"], {"mail"}),
        (["--queues=*"], set()),
        (["--queues=mail,reports", "--exclude-queues=mail"], {"default", "mail"}),
    ],
)
def test_queues_are_chosen_by_name(ended: Ended, flags: list[str], queues: set[str]) -> None:
    for name in ("default", "mail", "reports"):
        ended(20, queue_name=name)

    prune(*flags)

    assert set(Job.objects.values_list("queue_name", flat=True)) == queues


def test_jobs_of_other_backends_stay(ended: Ended) -> None:
    other = ended(20, backend_name="other")
    ended(20)

    prune()

    assert left() == {other}


def test_dry_run_counts_and_deletes_nothing(ended: Ended) -> None:
    jobs = {ended(20), ended(20, "FAILED"), ended(1)}
    Worker.objects.update(stopped_at="2000-01-01 00:00:00+00:00")

    said = prune("--dry-run")

    assert said == "Would delete 2 finished jobs with their runs.\n"
    assert left() == jobs
    assert Worker.objects.count() == 1


def test_many_jobs_go_in_small_transactions(ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prunecommand, "JOBS_AT_ONCE", 2)
    for number in range(5):
        ended(20, "FAILED" if number % 2 else "SUCCESSFUL")

    assert "Deleted 5 finished jobs" in prune()
    assert left() == set()


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite locks files, not rows")
def test_job_that_somebody_holds_is_not_waited_for(ended: Ended) -> None:
    held, _ = ended(20), ended(20)
    other = connection.copy()
    other.set_autocommit(False)
    try:
        with other.cursor() as cursor:
            id_ = from_uuid(other, held)
            cursor.execute("SELECT id FROM dayfly_job WHERE id = %s FOR UPDATE", [id_])
            assert cursor.fetchone()
        assert "Deleted 1 finished job with its runs" in prune()
    finally:
        other.close()

    assert left() == {held}
    assert Run.objects.count() == 1


def test_job_that_was_enqueued_anew_meanwhile_stays(
    ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the lock."""
    from dayfly.queue import prunings

    anew = ended(20)
    real = prunings.writing

    def late(connection: Any) -> Any:
        Job.objects.filter(id=anew).update(status="READY", finished_at=None)
        return real(connection)

    monkeypatch.setattr(prunings, "writing", late)

    assert "Deleted 0 finished jobs" in prune()
    assert left() == {anew}
    assert Run.objects.count() == 1


LONG_AGO = "2000-01-01 00:00:00+00:00"


def test_workers_that_ended_go_unless_they_hold_jobs(job: Any, worker: Any) -> None:
    alive, stopped, lost, holding, young = (
        worker(name) for name in ("alive", "stopped", "lost", "holding", "young")
    )
    job()
    queue.claim(holding.id, EVERY, limit=1, using="default")
    Worker.objects.filter(id=stopped.id).update(stopped_at=LONG_AGO)
    Worker.objects.filter(id__in=[lost.id, holding.id]).update(lost_at=LONG_AGO)
    Worker.objects.filter(id=young.id).update(stopped_at=F("started_at"))

    assert "and 2 rows of workers." in prune()
    assert set(Worker.objects.all()) == {alive, holding, young}


def test_worker_stays_for_as_long_as_its_runs(ended: Ended) -> None:
    """Also when the jobs of other queues are left."""
    ended(20, queue_name="mail")
    ended(20)
    Worker.objects.update(stopped_at=LONG_AGO)

    assert "and 0 rows of workers." in prune("--queues=mail")
    assert Run.objects.get().worker.name == "holder"
    assert "and 1 row of a worker." in prune()


def test_workers_of_other_backends_stay(worker: Any) -> None:
    worker("other")
    Worker.objects.update(stopped_at=LONG_AGO, backend_name="other")

    assert "and 0 rows of workers." in prune()


def test_worker_stays_while_failed_jobs_are_kept(worker: Any) -> None:
    worker()
    Worker.objects.update(stopped_at=F("started_at") - timedelta(days=20))

    assert "0 rows of workers." in prune("--failed-min-age-days=30")
    assert "1 row of a worker." in prune()


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--min-age-days=-1", "'-1' is not a number of days from 0 up"),
        ("--failed-min-age-days=long", "'long' is not a number of days from 0 up"),
        ("--queues=", "--queues names no queue"),
        ("--backend=nowhere", "nowhere"),
    ],
)
def test_wrong_flags_are_one_sentence(flag: str, words: str) -> None:
    with pytest.raises(CommandError, match=words) as caught:
        prune(flag)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (
            {"default": {"BACKEND": OURS, "OPTIONS": {"LEASE_SECOND": 9}}},
            """TASKS["default"]["OPTIONS"]: 'LEASE_SECOND' is not an option."""
            " Did you mean LEASE_SECONDS?",
        ),
        (
            {"mail": {"BACKEND": OURS}, "reports": {"BACKEND": OURS}},
            "TASKS has no entry 'default'; its entries are mail, reports.",
        ),
        (
            {"default": {"BACKEND": IMMEDIATE}},
            f"TASKS['default'] is not a backend of dayfly. {SET}",
        ),
        ({"default": {"QUEUES": []}}, f"TASKS['default'] has no BACKEND. {SET}"),
    ],
)
def test_wrong_entry_of_tasks_is_one_sentence(
    settings: Any, tasks: dict[str, Any], message: str
) -> None:
    settings.TASKS = tasks

    with pytest.raises(CommandError) as caught:
        prune()

    assert str(caught.value) == message


def test_age_without_measure_deletes_nothing(ended: Ended) -> None:
    kept = ended(20)

    prune("--min-age-days=1e300")

    assert left() == {kept}


def test_database_without_tables_is_one_sentence() -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE dayfly_job RENAME TO dayfly_elsewhere")
        try:
            with pytest.raises(CommandError, match="migrate dayfly --database=default") as caught:
                prune("--dry-run")
        finally:
            if connection.vendor == "postgresql":
                transaction.set_rollback(True)
            else:
                with connection.cursor() as cursor:
                    cursor.execute("ALTER TABLE dayfly_elsewhere RENAME TO dayfly_job")

    assert "\n" not in str(caught.value)


def test_queue_that_nothing_can_be_enqueued_on_is_told(caplog: pytest.LogCaptureFixture) -> None:
    prune("--backend=second", "--queues=mail,reprots")
    prune("--backend=second", "--exclude-queues=reports")

    assert caplog.messages == [
        "No task can be enqueued on reprots: QUEUES of TASKS['second'] has only mail, reports."
    ]


def test_nothing_is_said_where_nothing_is_wanted(
    ended: Ended, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended(20)
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)

    assert prune("-v", "0", "--queues=default") == ""
    assert prune("-v", "0", "--backend=second", "--queues=reprots") == ""
    assert (terminal.getvalue(), caplog.messages, left()) == ("", [], set())


class Terminal(io.StringIO):
    """Where somebody looks."""

    def isatty(self) -> bool:
        return True


def test_terminal_shows_how_far_it_is(ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    for _ in range(3):
        ended(20)
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)

    prune()

    shown = terminal.getvalue()
    assert "0/3" in shown
    assert "3/3" in shown
