"""Several workers on one queue, and several queues for one worker."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import transaction
from django.utils import timezone

from dayfly.models import Job, JobStatus, Run, Worker
from tests.helpers import eventually
from tests.lifecycle import tasks
from tests.workers import (
    finished,
    job_of,
    outcomes_of,
    run_worker,
    running_worker,
    runs_of,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_two_workers_share_a_queue_and_no_job_runs_twice(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with transaction.atomic():
        results = [tasks.appends.enqueue(str(path), number) for number in range(400)]

    with running_worker("--worker-id=one") as one, running_worker("--worker-id=two") as two:
        finished(*results, within=60)
        assert one.stops() == 0
        assert two.stops() == 0

    assert Counter(path.read_text().split()) == {str(number): 1 for number in range(400)}
    assert Run.objects.count() == 400
    assert set(Run.objects.values_list("attempt", "outcome")) == {(1, "returned")}
    assert set(Job.objects.values_list("status", "attempts", "epoch")) == {("SUCCESSFUL", 1, 1)}
    # Both had a part in it; else nothing was shared.
    assert set(Run.objects.values_list("worker_name", flat=True)) == {"one", "two"}


def test_workers_have_rows_that_say_who_they_are() -> None:
    with running_worker("--worker-id=me", "--concurrency=3", "--queues=mail, reports") as worker:
        row = Worker.objects.get()

        assert (row.name, row.pid, row.concurrency) == ("me", worker.pid, 3)
        assert (row.queues, row.backend_name) == ("mail,reports", "default")
        assert row.settings_module == "tests.lifecycle.settings"
        assert row.heartbeat_at < row.lease_expires_at
        assert (row.stopped_at, row.lost_at) == (None, None)
        eventually(lambda: Worker.objects.get().rss_bytes, what="the first heartbeat's figures")
        beaten = Worker.objects.get()
        assert beaten.children == 3
        assert 1_000_000 < beaten.anon_bytes < beaten.rss_bytes < beaten.vms_bytes
        assert beaten.children_pss_bytes > 1_000_000
        assert worker.stops() == 0


def test_queues_named_are_served_and_no_others() -> None:
    mail = tasks.returns.using(queue_name="mail").enqueue()
    reports = tasks.returns.using(queue_name="reports").enqueue()
    other = tasks.returns.enqueue()

    run_worker("--batch", "--queues=mail,reports")

    assert outcomes_of(mail) == outcomes_of(reports) == ["returned"]
    assert job_of(other).status == JobStatus.READY


def test_excluded_queues_are_left_alone() -> None:
    mail = tasks.returns.using(queue_name="mail").enqueue()
    other = tasks.returns.enqueue()

    run_worker("--batch", "--exclude-queues=mail")

    assert job_of(mail).status == JobStatus.READY
    assert outcomes_of(other) == ["returned"]


def test_jobs_of_another_backend_are_left_alone() -> None:
    second = tasks.returns.using(backend="second", queue_name="mail").enqueue()
    first = tasks.returns.enqueue()

    run_worker("--batch")

    assert outcomes_of(first) == ["returned"]
    assert job_of(second).status == JobStatus.READY

    run_worker("--batch", "--backend=second")

    assert outcomes_of(second) == ["returned"]


def test_highest_priority_runs_first_then_the_oldest(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for number, priority in enumerate((0, -5, 10, 0, 10)):
        tasks.appends.using(priority=priority).enqueue(str(path), f"{priority}.{number}")

    run_worker("--batch", "--concurrency=1")

    assert path.read_text().split() == ["10.2", "10.4", "0.0", "0.3", "-5.1"]


def test_job_for_later_runs_when_it_is_due() -> None:
    with running_worker("--interval=30"):
        due = timezone.now() + timedelta(seconds=1)
        result = tasks.returns.using(run_after=due).enqueue()
        assert job_of(result).status == JobStatus.SCHEDULED
        finished(result)

    (run,) = runs_of(result)
    assert 0 <= (run.started_at - due).total_seconds() < 15  # half of the interval


def test_batch_leaves_jobs_for_later() -> None:
    due = timezone.now() + timedelta(hours=1)
    later = tasks.returns.using(run_after=due).enqueue()
    now = tasks.returns.enqueue()

    run_worker("--batch", "--interval=30")

    assert outcomes_of(now) == ["returned"]
    assert job_of(later).status == JobStatus.SCHEDULED


def test_job_is_seen_only_when_its_transaction_commits() -> None:
    with running_worker():
        with transaction.atomic():
            rolled_back = tasks.returns.enqueue()
            transaction.set_rollback(True)
        result = tasks.returns.enqueue()
        finished(result)

    assert not Job.objects.filter(id=rolled_back.id).exists()
    assert Run.objects.count() == 1
