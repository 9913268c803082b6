from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dayfly import backend as backend_module
from dayfly import queue
from dayfly.backend import DatabaseBackend
from dayfly.compat import (
    InvalidTask,
    TaskResultDoesNotExist,
    TaskResultMismatch,
    TaskResultStatus,
    task_backends,
    task_enqueued,
)
from dayfly.conf import OptionError
from dayfly.exceptions import (
    ArgumentsNotJSON,
    ArgumentsTooLarge,
    ChildKilled,
    TaskNotAllowed,
    TaskNotFound,
)
from dayfly.ids import uuid7
from dayfly.models import Job, JobStatus
from dayfly.queue import NewRun, Selection, Settlement
from tests import tasks
from tests.frameworks import PACKAGE, task

OURS = "dayfly.backend.DatabaseBackend"


@pytest.fixture
def options(settings):
    """Give the default backend options."""

    def give(**values):
        settings.TASKS = {"default": {"BACKEND": OURS, "QUEUES": [], "OPTIONS": values}}
        return task_backends["default"]

    return give


@pytest.fixture
def run_once(worker):
    """Claim the one ready job and settle it."""
    workers = iter("abcdefgh")

    def run(outcome, status, *, charged=True, return_value=None, **columns):
        me = worker(next(workers))
        selection = Selection(backend_name="default", queues=None)
        (claim,) = queue.claim(me.id, selection, limit=1, using="default")
        row = NewRun(
            job_id=claim.job_id,
            epoch=claim.epoch,
            attempt=claim.attempt,
            worker_id=me.id,
            worker_name=me.name,
            task_path=claim.task_path,
            outcome=outcome,
            enqueued_at=claim.enqueued_at,
            finished_at=claim.claimed_at,
            **columns,
        )
        settlement = Settlement(
            job_id=claim.job_id,
            epoch=claim.epoch,
            status=status,
            charged=charged,
            return_value=return_value,
            started_at=claim.claimed_at,
            run=row,
        )
        assert queue.finish(me.id, [settlement], using="default")

    return run


class TestEnqueue:
    def test_is_one_insert(self, db):
        with CaptureQueriesContext(connection) as queries:
            result = tasks.add.enqueue(1, right=2)

        assert len(queries) == 1
        row = Job.objects.get()
        assert str(row.id) == result.id
        assert (row.task_path, row.backend_name) == ("tests.tasks.add", "default")
        assert json.loads(row.arguments) == {"args": [1], "kwargs": {"right": 2}}

    def test_gives_a_ready_result(self, db):
        result = tasks.add.enqueue(1, right=2)

        assert result.status == TaskResultStatus.READY
        assert (result.args, result.kwargs) == ([1], {"right": 2})
        assert result.enqueued_at is not None
        assert (result.started_at, result.finished_at, result.errors) == (None, None, [])
        assert (result.attempts, result.is_finished, result.backend) == (0, False, "default")

    def test_takes_over_what_the_task_says(self, db):
        tasks.send.enqueue("a@example.com")
        tasks.send.using(priority=-3, queue_name="slow").enqueue("b@example.com")

        rows = Job.objects.order_by("-priority")
        assert [(row.priority, row.queue_name) for row in rows] == [(7, "mail"), (-3, "slow")]

    def test_arguments_arrive_as_json_has_them(self, db):
        result = tasks.add.enqueue((1, b"two"), right={"a": (3,), "b": "\ud800\N{SNOWMAN}"})

        assert result.args == [[1, "two"]]
        again = tasks.add.get_result(result.id)
        assert (again.args, again.kwargs) == (result.args, result.kwargs)

    @pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), b"\xff", {(1,): 2}])
    def test_arguments_that_are_not_json_are_refused(self, db, value):
        with pytest.raises(ArgumentsNotJSON, match=r"tests\.tasks\.add") as caught:
            tasks.add.enqueue(value)

        assert isinstance(caught.value, TypeError)
        assert not Job.objects.exists()

    def test_arguments_that_contain_themselves_are_refused(self, db):
        endless: list = []
        endless.append(endless)

        with pytest.raises(ArgumentsNotJSON):
            tasks.add.enqueue(endless)

    def test_arguments_may_be_as_large_as_the_limit_and_no_larger(self, db, options):
        options(MAX_ARGUMENTS_BYTES=100)
        overhead = len('{"args":[""],"kwargs":{}}')

        tasks.add.enqueue("x" * (100 - overhead))
        with pytest.raises(ArgumentsTooLarge, match=r"take 101 bytes as JSON, more than 100\."):
            tasks.add.enqueue("x" * (101 - overhead))

        assert Job.objects.count() == 1

    def test_later_is_scheduled_and_shown_as_ready(self, db):
        later = timezone.now() + timedelta(hours=1)

        result = tasks.add.using(run_after=later).enqueue(1)

        assert Job.objects.get().status == "SCHEDULED"
        assert result.status == TaskResultStatus.READY
        again = tasks.add.get_result(result.id)
        assert again.status == TaskResultStatus.READY
        assert again.task.run_after == later

    def test_sends_the_signal_with_the_backends_type(self, db):
        heard = []

        def hear(sender, task_result, **kwargs):
            heard.append((sender, task_result.id, Job.objects.count()))

        task_enqueued.connect(hear)
        try:
            result = tasks.add.enqueue(1)
        finally:
            task_enqueued.disconnect(hear)

        assert heard == [(DatabaseBackend, result.id, 1)]

    def test_async_does_the_same(self, db):
        heard = []

        async def hear(sender, task_result, **kwargs):
            heard.append((sender, task_result.id))

        async def enqueue():
            result = await tasks.wait.aenqueue()
            return result, await tasks.wait.aget_result(result.id)

        task_enqueued.connect(hear)
        try:
            result, again = async_to_sync(enqueue)()
        finally:
            task_enqueued.disconnect(hear)

        assert heard == [(DatabaseBackend, result.id)]
        assert again.id == result.id == str(Job.objects.get().id)

    @pytest.mark.django_db(transaction=True)
    def test_is_part_of_the_callers_transaction(self):
        with transaction.atomic():
            tasks.add.enqueue(1)
            assert Job.objects.exists()
            transaction.set_rollback(True)

        assert not Job.objects.exists()


class TestRules:
    @pytest.mark.parametrize("priority", [101, -101, 1.5])
    def test_priority_out_of_range_is_refused(self, priority):
        with pytest.raises(InvalidTask):
            tasks.add.using(priority=priority)

    def test_queue_that_is_not_named_is_refused(self):
        with pytest.raises(InvalidTask, match="Queue"):
            tasks.add.using(backend="second", queue_name="default")

        assert tasks.add.using(backend="second", queue_name="mail").queue_name == "mail"

    def test_naive_run_after_is_refused(self):
        with pytest.raises(InvalidTask, match="aware"):
            tasks.add.using(run_after=timezone.now().replace(tzinfo=None))

    def test_local_function_is_refused(self):
        def local():
            return None

        with pytest.raises(InvalidTask, match="module level"):
            task(local)

    def test_task_that_is_not_allowed_is_refused(self, db, options):
        options(ALLOWED_TASKS=["shop.*", "tests.tasks.s*"])

        tasks.send.enqueue("a@example.com")
        with pytest.raises(TaskNotAllowed, match=r"tests\.tasks\.add is not allowed") as caught:
            tasks.add.enqueue(1)

        assert isinstance(caught.value, InvalidTask)
        assert Job.objects.count() == 1

    def test_wrong_option_breaks_no_import_but_every_enqueue(self, db, options):
        built = options(NOTIFI=True)

        assert tasks.add.using(priority=3).priority == 3
        with pytest.raises(OptionError, match="NOTIFI"):
            tasks.add.enqueue(1)
        with pytest.raises(OptionError):
            built.get_result(str(uuid7()))

        assert not Job.objects.exists()

    def test_supports_everything(self):
        backend = task_backends["default"]

        assert backend.supports_defer
        assert backend.supports_async_task
        assert backend.supports_get_result
        assert backend.supports_priority

    def test_builds_before_the_apps_are_ready(self, monkeypatch):
        from django.apps import apps

        monkeypatch.setattr(apps, "models_ready", False)
        monkeypatch.setattr(apps, "apps_ready", False)
        monkeypatch.setattr(apps, "ready", False)

        assert DatabaseBackend("early", {"QUEUES": [], "OPTIONS": {}}).alias == "early"


class TestResult:
    def test_costs_one_query_and_one_more_for_runs(self, db, run_once):
        result = tasks.add.enqueue(1)
        with CaptureQueriesContext(connection) as before:
            tasks.add.get_result(result.id)
        run_once("returned", JobStatus.SUCCESSFUL, return_value="1")
        with CaptureQueriesContext(connection) as after:
            tasks.add.get_result(result.id)

        assert (len(before), len(after)) == (1, 2)

    def test_of_a_success(self, db, run_once):
        result = tasks.add.enqueue(1)
        run_once("returned", JobStatus.SUCCESSFUL, return_value='{"a": [1, null]}')

        result.refresh()

        assert result.status == TaskResultStatus.SUCCESSFUL
        assert result.return_value == {"a": [1, None]}
        assert (result.worker_ids, result.attempts, result.errors) == (["a"], 1, [])
        assert result.started_at == result.last_attempted_at is not None
        assert result.finished_at >= result.started_at
        assert result.is_finished

    def test_of_one_that_returned_nothing(self, db, run_once):
        result = tasks.add.enqueue(1)
        run_once("returned", JobStatus.SUCCESSFUL, return_value="null")

        assert tasks.add.get_result(result.id).return_value is None

    def test_of_a_failure_has_the_errors_of_every_attempt(self, db, run_once):
        result = tasks.add.enqueue(1)
        run_once(
            "raised",
            JobStatus.READY,
            exception_class_path="builtins.ValueError",
            traceback="Traceback: first",
        )
        run_once("stopped", JobStatus.READY, charged=False, message="The worker stopped.")
        run_once("killed", JobStatus.FAILED, message="Signal 9 ended the child.")

        result.refresh()

        assert result.status == TaskResultStatus.FAILED
        assert [error.exception_class for error in result.errors] == [ValueError, ChildKilled]
        assert [error.traceback for error in result.errors] == [
            "Traceback: first",
            "Signal 9 ended the child.",
        ]
        assert (result.worker_ids, result.attempts) == (["a", "c"], 2)
        with pytest.raises(ValueError, match="failed"):
            _ = result.return_value

    def test_of_a_running_job_names_its_worker(self, db, worker):
        result = tasks.add.enqueue(1)
        selection = Selection(backend_name="default", queues=None)
        queue.claim(worker("me").id, selection, limit=1, using="default")

        result.refresh()

        assert result.status == TaskResultStatus.RUNNING
        assert (result.worker_ids, result.attempts) == (["me"], 1)
        assert result.started_at is not None

    def test_of_a_queue_that_left_the_settings_can_be_read(self, db, settings):
        result = tasks.add.using(queue_name="old").enqueue(1)
        settings.TASKS = {"default": {"BACKEND": OURS, "QUEUES": ["default"]}}

        again = task_backends["default"].get_result(result.id)

        assert (again.task.queue_name, again.task.func) == ("old", tasks.add.func)
        with pytest.raises(InvalidTask, match="old"):
            again.task.using(priority=1)

    def test_has_the_task_as_it_was_enqueued(self, db):
        result = tasks.send.using(priority=-3, queue_name="slow").enqueue("x")

        again = task_backends["default"].get_result(result.id).task

        assert (again.func, again.priority, again.queue_name) == (tasks.send.func, -3, "slow")

    @pytest.mark.parametrize(
        "result_id", ["", "no id", "1", "0" * 32, "018f0000-0000-7000-8000-000000000000"]
    )
    def test_that_does_not_exist(self, db, result_id):
        with pytest.raises(TaskResultDoesNotExist):
            task_backends["default"].get_result(result_id)
        with pytest.raises(TaskResultDoesNotExist):
            async_to_sync(task_backends["default"].aget_result)("no id")

    def test_of_another_backend_does_not_exist(self, db):
        result = tasks.send.using(backend="second").enqueue("x")

        assert task_backends["second"].get_result(result.id).backend == "second"
        with pytest.raises(TaskResultDoesNotExist):
            task_backends["default"].get_result(result.id)

    def test_of_another_task_does_not_match(self, db):
        result = tasks.add.enqueue(1)

        with pytest.raises(TaskResultMismatch):
            tasks.send.get_result(result.id)

    @pytest.mark.parametrize(
        "path",
        [
            "tests.tasks.gone",
            "tests.gone.add",
            "gone.tasks.add",
            "gone",
            "tests.tasks.not_a_task",
            "os.system",
        ],
    )
    def test_of_a_task_that_is_gone_says_so(self, job, path):
        added = job(task_path=path)

        with pytest.raises(TaskNotFound, match=path.replace(".", r"\.")):
            task_backends["default"].get_result(str(added.id))

    def test_of_a_task_that_is_not_allowed_imports_nothing(self, job, options):
        added = job(task_path="this.os_path.add")
        backend = options(ALLOWED_TASKS=["tests.*"])

        with pytest.raises(TaskNotAllowed):
            backend.get_result(str(added.id))

    def test_of_a_task_whose_module_fails_says_why(self, job, tmp_path, monkeypatch):
        (tmp_path / "broken_module.py").write_text("import missing_dependency")
        monkeypatch.syspath_prepend(tmp_path)
        added = job(task_path="broken_module.add")

        with pytest.raises(TaskNotFound, match="missing_dependency"):
            task_backends["default"].get_result(str(added.id))

    def test_task_within_a_class_is_found(self):
        assert task_backends["default"].load_task("tests.tasks.Holder.inner") is tasks.Holder.inner


def test_missing_app_is_told_to_whoever_enqueues_or_asks(settings):
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "dayfly"]
    backend = task_backends["default"]

    for use in (
        lambda: tasks.add.enqueue(1),
        lambda: backend.get_result(str(uuid7())),
        lambda: backend.database,
    ):
        with pytest.raises(ImproperlyConfigured) as caught:
            use()
        assert str(caught.value) == (
            'Add "dayfly" to INSTALLED_APPS, then run: python manage.py migrate.'
        )


@pytest.mark.parametrize(
    "moment", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]
)
def test_end_of_the_calendar_is_refused(db, moment):
    """In another time zone there is no such day, and a row with it cannot be read."""
    with pytest.raises(InvalidTask, match="years 2 to 9998"):
        tasks.add.using(run_after=moment).enqueue(1)

    assert not Job.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_enqueue_with_autocommit_off_is_part_of_the_callers_transaction(end):
    transaction.set_autocommit(False)
    try:
        result = tasks.add.enqueue(1)
        getattr(transaction, end)()
    finally:
        transaction.set_autocommit(True)

    found = [str(job_id) for job_id in Job.objects.values_list("id", flat=True)]
    assert found == ([result.id] if end == "commit" else [])


class TestNotify:
    @pytest.fixture
    def sent(self, monkeypatch):
        sent: list = []
        monkeypatch.setattr(queue, "notify", lambda name, *, using: sent.append((name, using)))
        return sent

    @pytest.fixture
    def listening(self, vendor):
        if vendor != "postgresql":
            pytest.skip("NOTIFY is of PostgreSQL")

    def test_is_sent_after_the_commit(
        self, db, listening, sent, django_capture_on_commit_callbacks
    ):
        with django_capture_on_commit_callbacks(execute=True):
            tasks.add.enqueue(1)
            assert sent == []

        assert sent == [("default", "default")]

    def test_is_sent_once_in_a_moment_for_each_queue(
        self, db, listening, sent, monkeypatch, options, django_capture_on_commit_callbacks
    ):
        options()
        now = [100.0]
        monkeypatch.setattr(backend_module.time, "monotonic", lambda: now[0])
        with django_capture_on_commit_callbacks(execute=True):
            for _ in range(3):
                tasks.add.enqueue(1)
            tasks.send.enqueue("x")
        now[0] += backend_module.NOTIFY_PAUSE_SECONDS * 1.01
        with django_capture_on_commit_callbacks(execute=True):
            tasks.add.enqueue(1)

        assert [name for name, _ in sent] == ["default", "mail", "default"]

    def test_is_not_sent_when_the_option_says_so(
        self, db, options, sent, django_capture_on_commit_callbacks
    ):
        options(NOTIFY=False)

        with django_capture_on_commit_callbacks(execute=True):
            tasks.add.enqueue(1)

        assert sent == []

    @pytest.mark.django_db(transaction=True)
    def test_failing_does_not_fail_the_enqueue(self, listening, options, monkeypatch, caplog):
        options()

        def fail(name, *, using):
            raise RuntimeError("no NOTIFY today")

        monkeypatch.setattr(queue, "notify", fail)

        result = tasks.add.enqueue(1)

        assert str(Job.objects.get().id) == result.id
        assert "no NOTIFY today" in caplog.text

    @pytest.mark.django_db(transaction=True)
    def test_arrives_at_a_listener(self, listening, options):
        psycopg = pytest.importorskip("psycopg")
        options()
        parameters = connection.get_connection_params()
        wanted = {
            name: parameters[name] for name in ("host", "user", "dbname") if name in parameters
        }
        with psycopg.connect(**wanted, autocommit=True) as listener:
            listener.execute(f"LISTEN {queue.NOTIFY_CHANNEL}")

            tasks.send.enqueue("x")

            (note,) = listener.notifies(timeout=10, stop_after=1)
        assert note.payload == "mail"


@pytest.mark.skipif(find_spec("django_tasks") is None, reason="the backport is not installed")
class TestBackport:
    """A package that decorates with django_tasks.task, on whichever Django."""

    def test_shares_the_entry(self):
        import django_tasks

        assert type(django_tasks.task_backends["default"]) is DatabaseBackend

    def test_task_is_enqueued_and_found(self, db):
        from tests import backport_tasks

        result = backport_tasks.greet.enqueue("you")

        row = Job.objects.get()
        assert (str(row.id), row.task_path) == (result.id, "tests.backport_tasks.greet")
        again = backport_tasks.greet.get_result(result.id)
        assert again.task.func is backport_tasks.greet.func
        again.refresh()
        assert again.status == "READY"
        assert again.args == ["you"]

    def test_framework_is_the_one_of_django_where_it_has_one(self):
        from dayfly.compat import BaseTaskBackend

        assert BaseTaskBackend.__module__.startswith(PACKAGE)
