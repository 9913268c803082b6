from __future__ import annotations

import subprocess
import sys

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction

from dayfly import exceptions
from dayfly.executor.outcome import Outcome
from dayfly.ids import uuid7
from dayfly.models import Job, Run, Worker
from dayfly.results import ENDINGS


def test_migrations_say_what_the_models_say(db):
    call_command("makemigrations", "dayfly", check=True, dry_run=True, verbosity=0)


def test_ids_rise():
    ids = [uuid7() for _ in range(5000)]

    assert ids == sorted(ids)
    assert len(set(ids)) == 5000
    assert {one.version for one in ids} == {7}


@pytest.mark.parametrize(
    "changes",
    [
        {"priority": 101},
        {"status": "SUCCESSFUL"},
        {"finished_at": "2026-01-01 00:00:00+00:00"},
        {"status": "LATER"},
    ],
)
def test_database_refuses_a_job_that_cannot_be(job, changes):
    added = job()

    with pytest.raises(IntegrityError), transaction.atomic():
        Job.objects.filter(id=added.id).update(**changes)

    assert Job.objects.get().status == "READY"


def test_database_refuses_two_runs_of_one_claim(job):
    added = job()
    values = {
        "job": added,
        "epoch": 1,
        "attempt": 1,
        "worker_name": "one",
        "task_path": "tests.tasks.add",
        "outcome": "returned",
        "enqueued_at": added.enqueued_at,
        "finished_at": added.enqueued_at,
    }
    Run.objects.create(**values)

    with pytest.raises(IntegrityError), transaction.atomic():
        Run.objects.create(**values)

    assert Run.objects.count() == 1


def test_indexes_are_in_the_database(db):
    with connection.cursor() as cursor:
        there = connection.introspection.get_constraints(cursor, Job._meta.db_table)

    assert {index.name for index in Job._meta.indexes} <= set(there)


@pytest.mark.parametrize("model", [Job, Run, Worker])
def test_index_with_a_condition_is_no_warning_where_conditions_are_left_out(monkeypatch, model):
    """MySQL and MariaDB: their indexes hold every row, and their keys are made for that."""
    monkeypatch.setattr(connection.features, "supports_partial_indexes", False)

    assert model.check(databases=["default"]) == []


def test_every_other_warning_of_django_is_heard(monkeypatch):
    monkeypatch.setattr(Job._meta, "ordering", ["nowhere"])

    assert [message.id for message in Job.check(databases=["default"])] == ["models.E015"]


def test_every_ending_without_an_exception_has_a_class():
    endings = set(Outcome) - {Outcome.RETURNED, Outcome.RAISED}

    assert set(ENDINGS) == endings
    for path in ENDINGS.values():
        assert issubclass(getattr(exceptions, path.rpartition(".")[2]), exceptions.DayflyError)


def test_exceptions_need_no_django():
    code = "import sys, dayfly.exceptions; sys.exit('django' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "src"}, check=False)

    assert done.returncode == 0
