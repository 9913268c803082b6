from __future__ import annotations

import re
import threading
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dayfly import queue
from dayfly.ids import uuid7
from dayfly.models import Job, JobStatus, Run, Worker
from dayfly.queue import NewRun, RunExit, Selection, Settlement, claims, database
from dayfly.queue.database import clock, patient
from dayfly.queue.names import ready_queues

EVERY = Selection(backend_name="default", queues=None)
#: Past on any clock: leases and due times that are over.
LONG_AGO = timedelta(days=1)


def claim(worker, selection=EVERY, limit=10):
    return queue.claim(worker.id, selection, limit=limit, using="default")


def a_run(claim, worker, **changes):
    values = {
        "job_id": claim.job_id,
        "epoch": claim.epoch,
        "attempt": claim.attempt,
        "worker_id": worker.id,
        "worker_name": worker.name,
        "task_path": claim.task_path,
        "outcome": "returned",
        "enqueued_at": claim.enqueued_at,
        "claimed_at": claim.claimed_at,
        "finished_at": claim.claimed_at + timedelta(seconds=1),
    }
    return NewRun(**(values | changes))


def settle(worker, one, status=JobStatus.SUCCESSFUL, run=None, **changes):
    settlement = Settlement(
        job_id=one.job_id,
        epoch=one.epoch,
        status=status,
        **{"run": a_run(one, worker) if run is None else run, **changes},
    )
    return queue.finish(worker.id, [settlement], using="default")


def give_back(worker, one, **changes):
    settlement = Settlement(
        job_id=one.job_id, epoch=one.epoch, status=JobStatus.READY, charged=False, **changes
    )
    return queue.finish(worker.id, [settlement], using="default")


def expire(worker):
    Worker.objects.filter(id=worker.id).update(lease_expires_at=timezone.now() - LONG_AGO)


def rescue(max_times_lost=3, **options):
    return queue.rescue(max_times_lost=lambda backend: max_times_lost, using="default", **options)


class TestAdd:
    def test_is_one_statement_and_says_what_the_row_says(self, job):
        with CaptureQueriesContext(connection) as queries:
            added = job(priority=5, queue_name="mail")

        assert len(queries) == 1
        row = Job.objects.get()
        assert row.id == added.id
        assert (row.status, row.priority, row.queue_name) == ("READY", 5, "mail")
        assert row.enqueued_at == row.due_at
        if connection.features.can_return_columns_from_insert:
            assert (added.status, added.enqueued_at, added.due_at) == (
                row.status,
                row.enqueued_at,
                row.due_at,
            )

    def test_is_scheduled_when_it_is_to_run_later(self, job):
        later = timezone.now() + timedelta(hours=1)

        added = job(run_after=later)

        row = Job.objects.get()
        assert added.status == row.status == "SCHEDULED"
        assert added.due_at == row.due_at == row.run_after == later

    def test_is_ready_when_its_time_has_passed(self, job):
        job(run_after=timezone.now() - LONG_AGO)

        row = Job.objects.get()
        assert row.status == "READY"
        assert row.due_at == row.run_after

    def test_uses_the_clock_of_the_database(self, job):
        before = clock(connection)
        row = job()
        after = clock(connection)

        assert before <= Job.objects.get(id=row.id).enqueued_at <= after

    def test_moments_are_aware(self, job):
        added = job()

        assert added.enqueued_at.utcoffset() == timedelta(0)

    @pytest.mark.django_db(transaction=True)
    def test_is_gone_when_the_callers_transaction_is(self, job):
        with transaction.atomic():
            job()
            transaction.set_rollback(True)

        assert not Job.objects.exists()


class TestClaim:
    def test_takes_priority_then_age_then_id(self, job, worker):
        late = job()
        early = job(run_after=timezone.now() - LONG_AGO)
        urgent = job(priority=50)
        low = job(priority=-50)

        claims = claim(worker())

        assert [one.job_id for one in claims] == [urgent.id, early.id, late.id, low.id]

    def test_takes_the_first_ones_when_there_are_more(self, job, worker):
        job(priority=1)
        best = job(priority=2)

        assert [one.job_id for one in claim(worker(), limit=1)] == [best.id]

    def test_notes_worker_epoch_attempt_and_times(self, job, worker):
        job()
        me = worker()

        (one,) = claim(me)

        row = Job.objects.get()
        assert (row.status, row.worker_id, row.epoch, row.attempts) == ("RUNNING", me.id, 1, 1)
        assert row.claimed_at == row.started_at == row.last_attempted_at == one.claimed_at
        assert (one.epoch, one.attempt, one.started_at) == (1, 1, row.started_at)
        assert (one.enqueued_at, one.due_at) == (row.enqueued_at, row.due_at)
        assert one.claimed_at.utcoffset() == timedelta(0)
        assert one.arguments == '{"args":[1],"kwargs":{}}'

    def test_takes_nothing_twice(self, job, worker):
        job()

        assert len(claim(worker())) == 1
        assert claim(worker("two")) == []

    @pytest.mark.parametrize(
        ("queues", "exclude", "expected"),
        [
            (None, (), ["a", "b", "c"]),
            (None, ("b",), ["a", "c"]),
            (("b",), (), ["b"]),
            (("c", "a", "a"), (), ["a", "c"]),
            (("a", "b"), ("a",), ["b"]),
            (("a",), ("a",), []),
            ((), (), []),
            (("none",), (), []),
        ],
    )
    def test_takes_only_the_queues_it_wants(self, job, worker, queues, exclude, expected):
        for name in "abc":
            job(queue_name=name)

        selection = Selection(backend_name="default", queues=queues, exclude=exclude)

        assert [one.queue_name for one in claim(worker(), selection)] == expected

    def test_queues_whose_names_differ_in_case_are_two(self, job, worker):
        for name in ("mail", "Mail", "m\N{LATIN SMALL LETTER A WITH ACUTE}il"):
            job(queue_name=name)

        selection = Selection(backend_name="default", queues=("mail",))

        assert [one.queue_name for one in claim(worker(), selection)] == ["mail"]

    def test_leaves_out_queues_among_many(self, job, worker):
        names = [f"queue {number}" for number in range(claims.MOST_NAMED + 3)]
        for name in names:
            job(queue_name=name)
        me = worker()

        every = Selection(backend_name="default", queues=None, exclude=(names[1], "none"))
        found = {one.queue_name for one in claim(me, every, limit=100)}

        assert found == set(names) - {names[1]}

    def test_names_of_queues_are_found_without_a_look_at_each_job(self, job, vendor):
        for number in range(300):
            job(queue_name="abc"[number % 3])
        job(queue_name="d", backend_name="second")
        job(queue_name="e", run_after=timezone.now() + timedelta(hours=1))

        with CaptureQueriesContext(connection) as queries:
            found = ready_queues(connection, "default", exclude=["b"], limit=9)

        assert sorted(found) == ["a", "c"]
        assert len(queries) == (3 if vendor == "mysql" else 1)
        assert len(ready_queues(connection, "default", exclude=["b"], limit=1)) == 1

    def test_orders_across_queues_by_priority(self, job, worker):
        for number in range(6):
            job(queue_name="ab"[number % 2], priority=number)

        claims = claim(worker(), Selection(backend_name="default", queues=("a", "b")), limit=3)

        assert [one.priority for one in claims] == [5, 4, 3]

    def test_leaves_other_backends_alone(self, job, worker):
        job(backend_name="second")

        assert claim(worker()) == []

    def test_leaves_what_is_not_due(self, job, worker):
        job(run_after=timezone.now() + timedelta(hours=1))

        assert claim(worker()) == []

    def test_refuses_a_worker_whose_lease_is_over(self, job, worker):
        job()
        me = worker()
        expire(me)

        assert claim(me) == []

        assert queue.heartbeat(me.id, {}, lease_seconds=60, using="default") is not None
        assert len(claim(me)) == 1

    def test_refuses_a_worker_that_stopped_or_is_unknown(self, job, worker):
        job()
        me = worker()
        queue.retire(me.id, using="default")

        assert claim(me) == []
        assert queue.claim(uuid7(), EVERY, limit=1, using="default") == []

    def test_asks_nothing_when_nothing_is_wanted(self, worker):
        me = worker()

        with CaptureQueriesContext(connection) as queries:
            assert claim(me, limit=0) == []

        assert len(queries) == 0

    def test_is_one_round_trip(self, job, worker, vendor):
        job()
        me = worker()

        with CaptureQueriesContext(connection) as queries:
            claim(me)

        statements = [one["sql"] for one in queries if "SAVEPOINT" not in one["sql"]]
        assert len(statements) == (2 if vendor == "mysql" else 1)

    @pytest.mark.parametrize("queues", [None, ("a",), ("a", "b", "c")])
    def test_looks_only_at_what_it_may_take(self, job, worker, vendor, queues):
        """Neither finished jobs nor those of other queues are read or sorted."""
        for number in range(400):
            job(queue_name="abcd"[number % 4], priority=number % 50)
        me = worker()
        selection = Selection(backend_name="default", queues=queues)
        sql, params = claims._pick(
            connection, claims.from_uuid(connection, me.id), selection, 2, "id"
        )
        prefix = {"postgresql": "EXPLAIN ANALYZE ", "mysql": "EXPLAIN "}.get(
            vendor, "EXPLAIN QUERY PLAN "
        )
        with connection.cursor() as cursor:
            if vendor == "postgresql":
                cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute(prefix + sql, params)
            plan = "\n".join(str(line) for line in cursor.fetchall())

        assert (claims.READY_INDEX if queues is None else claims.READY_QUEUE_INDEX) in plan
        if vendor == "postgresql":
            loops = [int(number) for number in re.findall(r"loops=(\d+)", plan)]
            assert max(loops) == 1, plan
        if vendor == "sqlite":
            assert "SCAN dayfly_job" not in plan

    def test_held_gives_the_claims_whose_answer_was_lost(self, job, worker):
        job()
        job(priority=3)
        me = worker()
        claims = claim(me)

        assert queue.held(me.id, using="default") == claims
        assert queue.held(uuid7(), using="default") == []


class TestFinish:
    def test_writes_the_outcome_and_the_run(self, job, worker):
        job()
        me = worker()
        (one,) = claim(me)
        started = one.claimed_at + timedelta(milliseconds=250)

        accepted = settle(me, one, return_value="3", started_at=started)

        row = Job.objects.get()
        assert accepted == {row.id}
        assert (row.status, row.return_value) == ("SUCCESSFUL", "3")
        assert row.started_at == row.last_attempted_at == started
        assert row.finished_at is not None
        run = Run.objects.get()
        assert (run.job_id, run.epoch, run.attempt, run.outcome) == (row.id, 1, 1, "returned")
        assert run.finished_at == one.claimed_at + timedelta(seconds=1)
        assert run.child_peak_rss_bytes is None

    def test_keeps_every_column_of_a_run(self, job, worker):
        """Each column gets a value of its own, so that no two can be exchanged."""
        job()
        me = worker()
        (one,) = claim(me)
        wanted = {}
        for number, field in enumerate(Run._meta.concrete_fields, 1):
            kind = field.get_internal_type()
            if kind in ("PositiveIntegerField", "BigIntegerField", "IntegerField"):
                wanted[field.attname] = number
            elif kind == "PositiveSmallIntegerField":
                wanted[field.attname] = 9
            elif kind == "FloatField":
                wanted[field.attname] = number + 0.125
            elif kind == "TextField":
                wanted[field.attname] = f"text {number} \N{SNOWMAN} 'quoted' \\n %s"
        wanted |= {"epoch": 1, "outcome": "raised", "exception_class_path": "builtins.ValueError"}

        settle(me, one, JobStatus.FAILED, a_run(one, me, **wanted))

        run = Run.objects.get()
        assert {name: getattr(run, name) for name in wanted} == wanted

    def test_fills_in_the_end_of_a_run_by_the_databases_clock(self, job, worker):
        job()
        me = worker()
        (one,) = claim(me)

        settle(me, one, run=a_run(one, me, finished_at=None))

        assert one.claimed_at <= Run.objects.get().finished_at <= clock(connection)

    def test_writes_many_at_once(self, job, worker):
        for _ in range(20):
            job()
        me = worker()
        settlements = [
            Settlement(
                job_id=one.job_id,
                epoch=one.epoch,
                status=JobStatus.SUCCESSFUL,
                return_value=f'"{one.job_id}"',
                run=a_run(one, me),
            )
            for one in claim(me, limit=20)
        ]

        accepted = queue.finish(me.id, settlements, using="default")

        assert len(accepted) == 20
        assert Run.objects.count() == 20
        for row in Job.objects.all():
            assert row.return_value == f'"{row.id}"'

    def test_repeated_after_an_unknown_commit_doubles_nothing(self, job, worker):
        job()
        me = worker()
        (one,) = claim(me)
        first = settle(me, one, return_value="1")
        before = Job.objects.values().get()

        second = settle(me, one, return_value="2")

        assert first == second == {one.job_id}
        assert Job.objects.values().get() == before
        assert Run.objects.count() == 1

    @pytest.mark.parametrize("field", ["epoch", "worker"])
    def test_refuses_what_is_not_its_own(self, job, worker, field):
        job()
        me, other = worker(), worker("two")
        (one,) = claim(me)
        epoch = one.epoch + 1 if field == "epoch" else one.epoch
        who = other if field == "worker" else me
        wrong = Settlement(
            job_id=one.job_id,
            epoch=epoch,
            status=JobStatus.FAILED,
            run=a_run(one, who, epoch=epoch),
        )

        assert queue.finish(who.id, [wrong], using="default") == set()

        assert Job.objects.get().status == "RUNNING"
        assert not Run.objects.exists()

    def test_refuses_a_worker_that_was_lost(self, job, worker):
        job()
        old, new = worker(), worker("two")
        (stale,) = claim(old)
        expire(old)
        rescue()

        # Not yet claimed anew: the epoch is still the old one.
        assert settle(old, stale) == set()
        (fresh,) = claim(new)
        assert fresh.epoch == stale.epoch + 1
        assert settle(old, stale, return_value='"late"') == set()
        assert settle(new, fresh, return_value='"right"') == {fresh.job_id}

        assert Job.objects.get().return_value == '"right"'
        assert [run.outcome for run in Run.objects.order_by("epoch")] == ["lost", "returned"]

    def test_given_back_unstarted_is_as_if_never_claimed(self, job, worker):
        job()
        fresh = Job.objects.values().get()
        me = worker()
        (one,) = claim(me)

        give_back(me, one)

        assert Job.objects.values().get() == fresh | {"epoch": 1}
        assert not Run.objects.exists()
        assert [again.attempt for again in claim(me)] == [1]

    def test_stopped_run_is_recorded_and_not_charged(self, job, worker):
        job()
        me = worker()
        (one,) = claim(me)

        give_back(me, one, run=a_run(one, me, outcome="stopped"), started_at=one.claimed_at)

        row = Job.objects.get()
        assert (row.status, row.attempts, row.started_at) == ("READY", 0, None)
        assert (row.last_attempted_at, row.worker_id, row.claimed_at) == (None, None, None)
        assert Run.objects.get().outcome == "stopped"

    def test_given_back_keeps_what_earlier_attempts_said(self, job, worker):
        job()
        me = worker()
        (one,) = claim(me)
        started = one.claimed_at + timedelta(milliseconds=5)
        failed = a_run(one, me, outcome="raised", started_at=started)
        settle(me, one, JobStatus.READY, failed, started_at=started)
        (two,) = claim(me)

        give_back(me, two)

        row = Job.objects.get()
        assert (row.attempts, row.started_at, row.last_attempted_at) == (1, started, started)

    def test_started_at_stays_that_of_the_first_attempt(self, job, worker):
        job()
        me = worker()
        (one,) = claim(me)
        first = one.claimed_at + timedelta(milliseconds=5)
        settle(me, one, JobStatus.READY, started_at=first)
        (two,) = claim(me)
        second = two.claimed_at + timedelta(milliseconds=5)

        settle(me, two, started_at=second)

        row = Job.objects.get()
        assert two.started_at == first
        assert (row.attempts, row.started_at, row.last_attempted_at) == (2, first, second)

    def test_text_that_a_database_refuses_does_not_lose_the_outcome(self, job, worker):
        job()
        me = worker()
        (one,) = claim(me)
        run = a_run(one, me, output="a\x00b\ud800c", exception_class_path="x" * 900)

        assert settle(me, one, run=run) == {one.job_id}

        kept = Run.objects.get()
        assert kept.output == "a\N{REPLACEMENT CHARACTER}b?c"
        assert len(kept.exception_class_path) == 500

    def test_number_that_is_none_is_null(self, job, worker, vendor):
        if vendor != "postgresql":
            pytest.skip("only PostgreSQL takes runs as JSON")
        job()
        me = worker()
        (one,) = claim(me)

        settle(me, one, run=a_run(one, me, run_seconds=float("nan")))

        assert Run.objects.get().run_seconds is None

    def test_nothing_to_finish_asks_nothing(self, worker):
        me = worker()

        with CaptureQueriesContext(connection) as queries:
            assert queue.finish(me.id, [], using="default") == set()

        assert len(queries) == 0

    def test_exits_are_added_to_their_runs(self, job, worker):
        job()
        job()
        me = worker()
        claims = claim(me)
        for one in claims:
            settle(me, one)
        exits = [
            RunExit(
                job_id=one.job_id,
                epoch=one.epoch,
                fields={"parent_rss_after_join_bytes": 100 + number, "cpu_user_seconds": 0.5},
            )
            for number, one in enumerate(claims)
        ]

        queue.note_exits(exits, using="default")
        queue.note_exits([], using="default")

        figures = [Run.objects.get(job_id=one.job_id).parent_rss_after_join_bytes for one in claims]
        assert figures == [100, 101]
        assert set(Run.objects.values_list("cpu_user_seconds", flat=True)) == {0.5}

    def test_exit_with_an_unknown_column_is_refused(self, db):
        exits = [RunExit(job_id=uuid7(), epoch=1, fields={"id = 0; --": 1})]

        with pytest.raises(ValueError, match="no column"):
            queue.note_exits(exits, using="default")


class TestWorkers:
    def test_register_gives_a_lease_by_the_databases_clock(self, db):
        row = Worker(name="w", backend_name="default", host="h", pid=1, concurrency=1)

        moment = queue.register(row, lease_seconds=30, using="default")

        kept = Worker.objects.get()
        assert kept.started_at == kept.heartbeat_at == moment
        assert kept.lease_expires_at - moment == timedelta(seconds=30)

    def test_heartbeat_renews_the_lease_and_notes_the_figures(self, worker):
        me = worker(lease_seconds=5)

        moment = queue.heartbeat(
            me.id, {"rss_bytes": 7, "children": None}, lease_seconds=100, using="default"
        )

        kept = Worker.objects.get()
        assert kept.heartbeat_at == moment
        assert kept.lease_expires_at - moment == timedelta(seconds=100)
        assert (kept.rss_bytes, kept.children) == (7, None)

    def test_heartbeat_tells_a_lost_or_stopped_worker(self, worker):
        lost, stopped = worker(), worker("two")
        expire(lost)
        rescue()
        queue.retire(stopped.id, using="default")

        assert queue.heartbeat(lost.id, {}, lease_seconds=60, using="default") is None
        assert queue.heartbeat(stopped.id, {}, lease_seconds=60, using="default") is None

    def test_heartbeat_refuses_an_unknown_figure(self, worker):
        with pytest.raises(ValueError, match="lost_at"):
            queue.heartbeat(worker().id, {"lost_at": None}, lease_seconds=60, using="default")


class TestRescue:
    def test_leaves_the_living_alone(self, job, worker):
        job()
        claim(worker())

        assert rescue() == []
        assert Job.objects.get().status == "RUNNING"

    def test_gives_back_the_jobs_of_a_silent_worker(self, job, worker):
        job()
        me = worker()
        (one,) = claim(me)
        expire(me)

        (rescued,) = rescue()

        row = Job.objects.get()
        assert (rescued.job_id, rescued.worker_name, rescued.failed) == (row.id, "one", False)
        assert (row.status, row.worker_id, row.claimed_at) == ("READY", None, None)
        assert (row.attempts, row.times_lost, row.epoch) == (1, 1, 1)
        run = Run.objects.get()
        assert (run.outcome, run.worker_id, run.epoch) == ("lost", me.id, one.epoch)
        assert run.exception_class_path == "dayfly.exceptions.WorkerLost"
        assert "Worker one (host host, pid 4711)" in run.message
        assert "loss 1 of 3" in run.message
        assert Worker.objects.get().lost_at is not None
        assert rescue() == []

    def test_gives_up_a_job_that_was_lost_too_often(self, job, worker):
        job()
        outcomes = []
        for number in range(3):
            me = worker(str(number))
            claim(me)
            expire(me)
            outcomes += rescue(max_times_lost=3)

        assert [one.failed for one in outcomes] == [False, False, True]
        row = Job.objects.get()
        assert (row.status, row.times_lost, row.attempts) == ("FAILED", 3, 3)
        assert row.finished_at is not None
        assert "MAX_TIMES_LOST" in Run.objects.get(epoch=3).message

    def test_gives_up_by_the_limit_of_the_jobs_own_backend(self, job, worker):
        for name in ("default", "second"):
            job(backend_name=name)
        me = worker()
        for name in ("default", "second"):
            claim(me, Selection(backend_name=name, queues=None))
        expire(me)

        queue.rescue(max_times_lost={"default": 2, "second": 1}.__getitem__, using="default")

        found = dict(Job.objects.values_list("backend_name", "status"))
        assert found == {"default": "READY", "second": "FAILED"}

    def test_marks_a_silent_worker_that_holds_nothing(self, worker):
        me = worker()
        expire(me)

        assert rescue() == []
        assert Worker.objects.get(id=me.id).lost_at is not None

    @pytest.mark.parametrize("end", ["lost_at", "stopped_at"])
    def test_takes_what_a_worker_left_after_its_end(self, job, worker, end):
        """A claim may commit just after the worker was declared lost."""
        job()
        me = worker()
        claim(me)
        Worker.objects.filter(id=me.id).update(**{end: timezone.now()})

        assert len(rescue()) == 1
        assert Job.objects.get().status == "READY"

    def test_takes_what_nobody_holds(self, job, worker):
        job()
        me = worker()
        claim(me)
        Worker.objects.all().delete()

        (rescued,) = rescue()

        assert rescued.worker_name == ""
        assert Run.objects.get().worker_id is None

    def test_takes_no_more_than_its_limit(self, job, worker):
        for _ in range(3):
            job()
        me = worker()
        claim(me)
        expire(me)

        assert [len(rescue(limit=2)) for _ in range(3)] == [2, 1, 0]


class TestSchedule:
    def test_promotes_what_is_due(self, job):
        due = job(run_after=timezone.now() + timedelta(hours=1))
        later = job(run_after=timezone.now() + timedelta(hours=2))
        Job.objects.filter(id=due.id).update(due_at=timezone.now() - LONG_AGO)

        assert queue.promote(using="default") == 1
        assert queue.promote(using="default") == 0

        assert Job.objects.get(id=due.id).status == "READY"
        assert Job.objects.get(id=later.id).status == "SCHEDULED"

    def test_promotes_the_earliest_first(self, job):
        ids = [job(run_after=timezone.now() + timedelta(hours=1)).id for _ in range(3)]
        for number, job_id in enumerate(ids):
            due_at = timezone.now() - timedelta(hours=number + 1)
            Job.objects.filter(id=job_id).update(due_at=due_at)

        assert queue.promote(using="default", limit=1) == 1

        assert Job.objects.get(status="READY").id == ids[2]

    def test_says_how_long_until_the_next(self, job):
        assert queue.next_due_seconds(using="default") is None

        job(run_after=timezone.now() + timedelta(seconds=100))
        assert 95 < queue.next_due_seconds(using="default") <= 100.1

        Job.objects.update(due_at=timezone.now() - LONG_AGO)
        assert queue.next_due_seconds(using="default") == 0.0

    def test_one_millisecond_is_seen(self, job):
        """Moments are text on SQLite: with and without a fraction they must compare."""
        whole = timezone.now().replace(microsecond=0) - timedelta(seconds=2)
        job(run_after=timezone.now() + timedelta(hours=1))
        Job.objects.update(due_at=whole)

        assert queue.promote(using="default") == 1


@pytest.fixture
def in_threads():
    """Run functions at once, each in a thread with a connection of its own."""

    def run(*functions):
        answers: list = [None] * len(functions)
        barrier = threading.Barrier(len(functions))

        def call(number, function):
            try:
                barrier.wait(10)
                answers[number] = function()
            except BaseException as error:
                answers[number] = error
            finally:
                connections.close_all()

        threads = [
            threading.Thread(target=call, args=(number, function))
            for number, function in enumerate(functions)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return answers

    return run


@pytest.mark.django_db(transaction=True)
class TestTogether:
    def test_no_job_is_claimed_twice(self, job, worker, in_threads):
        for number in range(60):
            job(queue_name="ab"[number % 2], priority=number % 3)
        workers = [worker(str(number)) for number in range(4)]
        several = Selection(backend_name="default", queues=("a", "b"))

        def drain(me, selection):
            mine = []
            misses = 0
            while misses < 20:
                claims = claim(me, selection, limit=3)
                misses = 0 if claims else misses + 1
                mine += [one.job_id for one in claims]
            return mine

        answers = in_threads(
            *(
                lambda me=me, selection=selection: drain(me, selection)
                for me, selection in zip(workers, [EVERY, several, EVERY, several], strict=True)
            )
        )

        claimed = [job_id for mine in answers for job_id in mine]
        assert len(claimed) == len(set(claimed)) == 60
        for me, mine in zip(workers, answers, strict=True):
            assert set(Job.objects.filter(worker_id=me.id).values_list("id", flat=True)) == set(
                mine
            )

    def test_claim_does_not_wait_for_a_locked_job(self, job, worker, vendor, in_threads):
        if vendor == "sqlite":
            pytest.skip("SQLite locks the whole database")
        locked, free = job(priority=9), job()
        me = worker()
        is_locked, is_claimed = threading.Event(), threading.Event()

        def hold():
            with transaction.atomic():
                Job.objects.select_for_update().get(id=locked.id)
                is_locked.set()
                # The other thread gets its answer while the lock is held.
                return is_claimed.wait(20)

        def take():
            assert is_locked.wait(20)
            claims = claim(me, limit=2)
            is_claimed.set()
            return claims

        held, claims = in_threads(hold, take)

        assert held is True
        assert [one.job_id for one in claims] == [free.id]

    def test_locked_sqlite_is_waited_for(self, job, worker, vendor, in_threads):
        if vendor != "sqlite":
            pytest.skip("SQLite only")
        job()
        me = worker()
        written = threading.Event()

        def write():
            connection = connections["default"]
            with transaction.atomic():
                Worker.objects.update(rss_bytes=1)
                written.set()
                # As long as a few of the timeouts below.
                return threading.Event().wait(0.4), connection.vendor

        def take():
            with connections["default"].cursor() as cursor:
                cursor.execute("PRAGMA busy_timeout = 50")
            assert written.wait(10)
            return claim(me)

        _, claims = in_threads(write, take)

        assert len(claims) == 1

    def test_lost_race_is_not_repeated_in_the_callers_transaction(self, job, monkeypatch):
        """The server has rolled back what the caller wrote before: a repeat would hide that."""
        tries = []

        @patient
        def loses(*, using):
            tries.append(using)
            raise OperationalError(1213, "Deadlock found")

        monkeypatch.setattr(database, "is_transient", lambda error: True)
        transaction.set_autocommit(False)
        try:
            with pytest.raises(OperationalError):
                loses(using="default")
            transaction.rollback()
        finally:
            transaction.set_autocommit(True)

        assert tries == ["default"]

    def test_two_rescuers_rescue_once(self, job, worker, in_threads):
        for _ in range(10):
            job()
        me = worker()
        claim(me)
        expire(me)

        answers = in_threads(rescue, rescue)

        rescued = [one.job_id for answer in answers for one in answer] + [
            one.job_id for one in rescue()
        ]
        assert len(rescued) == len(set(rescued)) == 10
        assert set(Job.objects.values_list("times_lost", flat=True)) == {1}

    def test_outcome_and_rescue_at_once_leave_one_truth(self, job, worker, in_threads):
        for _ in range(10):
            job()
            me = worker()
            (one,) = claim(me)
            expire(me)

            accepted, rescued = in_threads(
                lambda me=me, one=one: settle(me, one, return_value="1"), rescue
            )

            row = Job.objects.get()
            (run,) = Run.objects.all()
            if accepted:
                assert (row.status, run.outcome) == ("SUCCESSFUL", "returned")
                assert rescued == []
            else:
                assert (row.status, run.outcome) == ("READY", "lost")
                assert [each.job_id for each in rescued] == [row.id]
            Job.objects.all().delete()
            Worker.objects.all().delete()

    def test_finish_is_all_or_nothing(self, job, worker):
        for _ in range(2):
            job()
        me = worker()
        first, second = claim(me)
        good = Settlement(
            job_id=first.job_id, epoch=1, status=JobStatus.SUCCESSFUL, run=a_run(first, me)
        )
        broken = Settlement(
            job_id=second.job_id,
            epoch=1,
            status=JobStatus.SUCCESSFUL,
            run=a_run(second, me, attempt=-1),
        )

        with pytest.raises(Exception, match=r"(?i)check|constraint|range"):
            queue.finish(me.id, [good, broken], using="default")

        assert set(Job.objects.values_list("status", flat=True)) == {"RUNNING"}
        assert not Run.objects.exists()


def test_ids_come_back_as_ids(job, worker):
    job()

    (one,) = claim(worker())

    assert isinstance(one.job_id, UUID)


class TestWithoutTimeZones:
    """USE_TZ = False: naive local moments, stored and judged as Django does."""

    @pytest.fixture(autouse=True)
    def local(self, settings, db):
        settings.USE_TZ = False
        settings.TIME_ZONE = "Asia/Kolkata"
        self.reset()
        yield
        settings.USE_TZ = True
        settings.TIME_ZONE = "America/Chicago"
        self.reset()

    def reset(self):
        for name in ("timezone", "timezone_name"):
            connection.__dict__.pop(name, None)
        connection.ensure_timezone()

    def test_moments_are_local_and_naive(self, job, worker):
        job()
        later = job(run_after=timezone.now() + timedelta(hours=1))
        (one,) = claim(worker())

        assert one.claimed_at.tzinfo is None
        assert abs(one.claimed_at - timezone.now()) < timedelta(minutes=1)
        assert one.claimed_at == Job.objects.get(id=one.job_id).claimed_at
        assert later.status == "SCHEDULED"
        assert 3500 < queue.next_due_seconds(using="default") <= 3601

    def move_clocks(self, settings, zone):
        settings.TIME_ZONE = zone
        self.reset()

    def test_clocks_that_go_forward_end_no_lease(self, settings, job, worker):
        self.move_clocks(settings, "Etc/GMT-1")
        job()
        me = worker()
        claim(me)

        self.move_clocks(settings, "Etc/GMT-2")

        assert rescue() == []
        assert queue.heartbeat(me.id, {}, lease_seconds=60, using="default") is not None

    def test_clocks_that_go_back_prolong_no_lease(self, settings, job, worker):
        self.move_clocks(settings, "Etc/GMT-2")
        job()
        me = worker()
        claim(me)
        a_minute_ago = timezone.now() - timedelta(minutes=1)
        Worker.objects.filter(id=me.id).update(lease_expires_at=a_minute_ago)

        self.move_clocks(settings, "Etc/GMT-1")

        assert len(rescue()) == 1

    def test_hour_that_comes_twice_is_two_hours(self, settings, worker):
        self.move_clocks(settings, "Europe/Berlin")
        me = worker()
        first = datetime(2027, 10, 31, 2, 30, fold=0)  # noqa: DTZ001 - naive, as USE_TZ is off
        second = first.replace(fold=1)

        for moment in (first, second):
            Worker.objects.filter(id=me.id).update(started_at=moment, heartbeat_at=second)
            kept = Worker.objects.get()
            assert (kept.started_at, kept.started_at.fold) == (moment, moment.fold)
            is_earlier = Worker.objects.filter(started_at__lt=F("heartbeat_at")).exists()
            assert is_earlier == (moment is first)
