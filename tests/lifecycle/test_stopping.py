"""Being asked to stop: finish, or give back. No job pays for it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from dayfly.models import Job, JobStatus, Worker
from tests.helpers import eventually
from tests.lifecycle import tasks
from tests.workers import (
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_first_signal_lets_the_running_task_finish(tmp_path: Path, number: int) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    runs = tasks.waits.enqueue(str(mark), str(go))
    later = tasks.returns.enqueue()
    with running_worker("--concurrency=1") as worker:
        waits_for(mark)
        worker.signal(number)
        worker.says("Stopping: no more claims, 1 task finishes. Ask again to stop it.")
        assert worker.process.poll() is None
        go.touch()
        code = worker.ends()

    assert code == 0
    assert outcomes_of(runs) == ["returned"]
    assert job_of(later).status == JobStatus.READY
    assert Worker.objects.get().stopped_at is not None


def test_worker_with_more_queues_than_its_row_can_name_works() -> None:
    names = [f"queue-{number}" for number in range(100)]
    result = tasks.returns.using(queue_name=names[-1]).enqueue()

    run_worker("--batch", f"--queues={','.join(names)}")

    assert outcomes_of(result) == ["returned"]
    (row,) = Worker.objects.all()
    assert len(row.queues) == 500
    assert row.queues.startswith("queue-0,queue-1,")
    assert row.queues.endswith("...")


def test_idle_worker_ends_at_once() -> None:
    with running_worker("--interval=30") as worker:
        assert worker.stops(within=5) == 0

    assert Worker.objects.get().stopped_at is not None
    assert "Stopped after 0 tasks." in worker.log().splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_gives_the_running_job_back_uncharged(tmp_path: Path, number: int) -> None:
    mark = tmp_path / "mark"
    result = tasks.waits_the_first_time.enqueue(str(mark))
    with running_worker("--concurrency=1", complains=True) as worker:
        pid = int(waits_for(mark))
        worker.signal(number)
        worker.says("Stopping: no more claims")
        worker.signal(number)
        assert worker.ends() == 0

    gone(pid)
    job = job_of(result)
    (run,) = runs_of(result)
    assert (job.status, job.attempts, job.worker_id) == (JobStatus.READY, 0, None)
    assert (job.started_at, job.last_attempted_at, job.finished_at) == (None, None, None)
    assert (run.outcome, run.attempt, run.child_pid) == ("stopped", 1, pid)
    assert run.exception_class_path == "dayfly.exceptions.WorkerStopped"

    run_worker("--batch")

    job = job_of(result)
    assert (job.status, job.attempts, job.epoch) == (JobStatus.SUCCESSFUL, 1, 2)
    assert outcomes_of(result) == ["stopped", "returned"]
    result.refresh()
    assert result.return_value == 1
    assert result.errors == []
    assert len(result.worker_ids) == 1


def test_grace_gives_the_running_job_back_by_time(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    result = tasks.waits_the_first_time.enqueue(str(mark))
    with running_worker("--concurrency=1", "--grace=0.3", complains=True) as worker:
        waits_for(mark)
        assert worker.stops(within=10) == 0

    assert (job_of(result).status, job_of(result).attempts) == (JobStatus.READY, 0)
    assert outcomes_of(result) == ["stopped"]


def test_task_within_its_grace_finishes(tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    result = tasks.waits.enqueue(str(mark), str(go))
    with running_worker("--concurrency=1", "--grace=30") as worker:
        waits_for(mark)
        worker.signal(signal.SIGTERM)
        worker.says("Stopping")
        go.touch()
        assert worker.ends(within=10) == 0

    assert outcomes_of(result) == ["returned"]


def test_task_that_finishes_when_asked_is_believed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    result = tasks.finishes_when_asked_to_stop.enqueue(str(mark))
    with running_worker("--concurrency=1", "--grace=0") as worker:
        waits_for(mark)
        assert worker.stops() == 0

    result.refresh()
    assert result.return_value == "in time"


def test_task_that_does_not_listen_is_killed_after_its_grace(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    result = tasks.ignores_sigterm.enqueue(str(mark))
    options = {"KILL_GRACE_SECONDS": 0.3}
    with running_worker("--concurrency=1", "--grace=0", options=options) as worker:
        pid = int(waits_for(mark))
        assert worker.stops() == 0

    gone(pid)
    (run,) = runs_of(result)
    assert (job_of(result).status, job_of(result).attempts) == (JobStatus.READY, 0)
    assert (run.outcome, run.signal) == ("stopped", signal.SIGKILL)


def test_jobs_claimed_ahead_go_back_at_once(tmp_path: Path) -> None:
    """Short tasks make a worker claim ahead; then one comes that blocks the slot."""
    mark, go = tmp_path / "mark", tmp_path / "go"
    for _ in range(300):
        tasks.returns.enqueue()
    blocks = tasks.waits.enqueue(str(mark), str(go))
    for _ in range(100):
        tasks.returns.enqueue()
    with running_worker("--concurrency=1", "--max-tasks-per-child=0") as worker:
        waits_for(mark)
        worker.signal(signal.SIGTERM)
        worker.says("Stopping")
        # Long before the task that blocks comes to an end.
        eventually(lambda: Job.objects.filter(status=JobStatus.RUNNING).count() == 1, within=2.0)
        waiting = Job.objects.filter(status=JobStatus.READY)
        assert {job.attempts for job in waiting} == {0}
        assert {job.worker_id for job in waiting} == {None}
        # Otherwise nothing had been claimed ahead, and this would prove nothing.
        assert max(job.epoch for job in waiting) == 1
        go.touch()
        assert worker.ends() == 0

    assert outcomes_of(blocks) == ["returned"]
    run_worker("--batch", "--max-tasks-per-child=0")
    assert set(Job.objects.values_list("status", "attempts")) == {(JobStatus.SUCCESSFUL, 1)}


def test_jobs_that_wait_behind_a_long_task_go_to_an_idle_worker(tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    for _ in range(300):
        tasks.returns.enqueue()
    blocks = tasks.waits.enqueue(str(mark), str(go))
    others = [tasks.returns.enqueue() for _ in range(20)]
    with running_worker("--concurrency=1", "--max-tasks-per-child=0") as first:
        waits_for(mark)
        with running_worker("--concurrency=1") as second:
            finished(*others)
            assert job_of(blocks).status == JobStatus.RUNNING
            assert second.stops() == 0
        go.touch()
        assert first.stops() == 0

    assert outcomes_of(blocks) == ["returned"]


def test_signal_during_the_start_is_heeded() -> None:
    with running_worker(is_ready=False, complains=True) as worker:
        worker.says("Starting worker")
        assert worker.stops(within=10) == 0
