"""An idle worker hears of a new job long before its interval is over."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest
from django.db import connection

from dayfly.models import Run
from tests.helpers import eventually
from tests.lifecycle import tasks
from tests.workers import finished, running_worker, runs_of

pytestmark = pytest.mark.django_db(transaction=True)

#: What a job may wait on an idle worker of a machine that is busy, or stands still for a while;
#: one that nobody was told of would wait for the interval, 30 s.
SOON_SECONDS = 5.0


def needs(*vendors: str) -> None:
    if connection.vendor not in vendors:
        pytest.skip(f"{connection.vendor} does not tell of new rows: it is polled")


def test_job_on_an_idle_worker_starts_soon() -> None:
    needs("postgresql", "sqlite")
    with running_worker("--interval=30", "--concurrency=1"):
        for _ in range(10):
            finished(tasks.returns.enqueue())

    waits = sorted(Run.objects.values_list("queue_wait_seconds", flat=True))
    assert waits[8] < SOON_SECONDS
    assert waits[5] < 0.5
    assert waits[-1] < 15


def test_several_jobs_enqueued_at_once_all_start_soon() -> None:
    """Notifications are sent once for many jobs."""
    needs("postgresql", "sqlite")
    with running_worker("--interval=30", "--concurrency=1"):
        results = [tasks.returns.enqueue() for _ in range(30)]
        finished(*results, within=15)

    assert Run.objects.count() == 30


def test_worker_that_gets_no_notifications_looks_at_its_interval() -> None:
    options = {"NOTIFY": False}
    with running_worker("--interval=0.2", "--concurrency=1", options=options) as worker:
        worker.says("Heartbeat")
        result = tasks.returns.enqueue()
        finished(result)

    assert runs_of(result)[0].queue_wait_seconds < SOON_SECONDS


def test_polling_worker_finds_jobs_within_its_interval() -> None:
    with running_worker("--interval=1", "--concurrency=1"):
        for _ in range(3):
            finished(tasks.returns.enqueue())

    assert min(Run.objects.values_list("queue_wait_seconds", flat=True)) < 2


def test_idle_worker_costs_next_to_nothing() -> None:
    with running_worker("--interval=1", "--concurrency=1") as worker:
        worker.says("Heartbeat")
        # SQLite is asked 20 times a second.
        assert cpu_share(worker.pid) < 0.1


def test_worker_that_can_take_no_more_waits_for_its_children(tmp_path: Path) -> None:
    """What it is told of meanwhile is not taken from the socket: a loop that looked would spin."""
    marks = [tmp_path / "first", tmp_path / "second"]
    with running_worker("--interval=1", "--concurrency=2") as worker:
        for mark in marks:
            tasks.waits.enqueue(str(mark), until=str(tmp_path / "go"))
        eventually(lambda: all(mark.exists() for mark in marks))

        later = tasks.returns.enqueue()

        assert cpu_share(worker.pid) < 0.1
        (tmp_path / "go").touch()
        finished(later)


def test_worker_that_has_run_its_maximum_waits_for_the_last(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with running_worker("--interval=1", "--concurrency=2", "--max-tasks=1") as worker:
        tasks.waits.enqueue(str(mark), until=str(tmp_path / "go"))
        eventually(mark.exists)

        tasks.returns.enqueue()

        assert cpu_share(worker.pid) < 0.1
        (tmp_path / "go").touch()
        assert worker.ends() == 0
    assert Run.objects.count() == 1


def test_worker_that_stops_waits_for_the_last(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with running_worker("--interval=1", "--concurrency=2") as worker:
        tasks.waits.enqueue(str(mark), until=str(tmp_path / "go"))
        eventually(mark.exists)
        worker.signal(signal.SIGTERM)
        worker.says("Stopping")

        tasks.returns.enqueue()

        assert cpu_share(worker.pid) < 0.1
        (tmp_path / "go").touch()
        assert worker.ends() == 0
    assert Run.objects.count() == 1


def cpu_share(pid: int) -> float:
    """Return how much of one CPU the process *pid* uses, over two seconds of it."""
    process = psutil.Process(pid)
    before, began = process.cpu_times(), time.monotonic()
    eventually(lambda: time.monotonic() - began > 2, what="two seconds")
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / (time.monotonic() - began)
