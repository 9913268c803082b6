"""Children, workers and their machines die or fall silent. No job is lost, none is overwritten."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from dayfly.compat import TaskResultStatus
from dayfly.models import JobStatus, Run, Worker
from tests.helpers import children_of_worker, eventually, state_of
from tests.lifecycle import tasks
from tests.workers import (
    SHORT_LEASE,
    finished,
    gone,
    job_of,
    lose,
    outcomes_of,
    run_worker,
    running_worker,
    runs_of,
    waits_for,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_child_killed_from_outside_fails_its_job_and_no_other(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    result = tasks.waits.enqueue(str(mark))
    with running_worker("--concurrency=1") as worker:
        os.kill(int(waits_for(mark)), signal.SIGKILL)
        finished(result)
        after = tasks.returns.enqueue()
        finished(after)
        assert worker.stops() == 0

    (run,) = runs_of(result)
    assert (job_of(result).status, run.outcome, run.signal) == (JobStatus.FAILED, "killed", 9)
    assert outcomes_of(after) == ["returned"]


def test_standby_child_killed_from_outside_is_replaced() -> None:
    with running_worker("--concurrency=1", "--standby=1") as worker:
        (standby,) = eventually(lambda: children_of_worker(worker.pid))
        os.kill(standby, signal.SIGKILL)
        gone(standby)
        result = tasks.returns.enqueue("well")
        finished(result)

    assert outcomes_of(result) == ["returned"]


def test_children_of_a_killed_worker_die_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    tasks.waits.enqueue(str(mark))
    with running_worker("--concurrency=1", "--standby=2") as worker:
        waits_for(mark)
        children = eventually(lambda: len(found := children_of_worker(worker.pid)) == 3 and found)
        worker.signal(signal.SIGKILL)
        worker.ends()

        gone(*children)


def test_jobs_of_a_killed_worker_are_rescued_after_its_lease(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    result = tasks.waits_the_first_time.enqueue(str(mark))
    with running_worker("--worker-id=one", options=SHORT_LEASE) as first:
        waits_for(mark)
        first.signal(signal.SIGKILL)
        first.ends()
    claimed = job_of(result)
    assert (claimed.status, claimed.worker.name) == (JobStatus.RUNNING, "one")

    with running_worker("--worker-id=two", options=SHORT_LEASE) as second:
        finished(result)
        assert "Rescued task tests.lifecycle.tasks.waits_the_first_time" in second.log()
        assert "worker one went silent during attempt 1; it is ready again" in second.log()

    lost, returned = runs_of(result)
    job = job_of(result)
    assert (lost.outcome, lost.worker_name, lost.attempt, lost.epoch) == ("lost", "one", 1, 1)
    assert (returned.outcome, returned.worker_name, returned.attempt) == ("returned", "two", 2)
    assert lost.finished_at >= Worker.objects.get(name="one").lease_expires_at
    assert (job.status, job.attempts, job.times_lost) == (JobStatus.SUCCESSFUL, 2, 1)
    assert Worker.objects.get(name="one").lost_at is not None
    result.refresh()
    assert result.return_value == 2
    assert result.worker_ids == ["one", "two"]
    (error,) = result.errors
    assert error.exception_class_path == "dayfly.exceptions.WorkerLost"


def test_worker_rescues_long_before_it_is_as_old_as_a_lease(tmp_path: Path) -> None:
    """Else no worker of a chain that lives for some tasks each would ever rescue anybody."""
    mark = tmp_path / "mark"
    result = tasks.waits_the_first_time.enqueue(str(mark))
    with running_worker("--worker-id=one") as first:
        waits_for(mark)
        lose(first)

    with running_worker("--worker-id=two", options={"LEASE_SECONDS": 12}):
        finished(result)

    age = runs_of(result)[0].finished_at - Worker.objects.get(name="two").started_at
    assert timedelta(seconds=3) <= age < timedelta(seconds=11)


def test_batch_waits_for_the_jobs_of_a_dead_worker(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    result = tasks.waits_the_first_time.enqueue(str(mark))
    with running_worker("--worker-id=one", options=SHORT_LEASE) as first:
        waits_for(mark)
        lose(first)

    run_worker("--batch", options=SHORT_LEASE)

    assert outcomes_of(result) == ["lost", "returned"]


def test_job_that_was_lost_too_often_fails(tmp_path: Path) -> None:
    """It may be the job that brings its workers down."""
    result = tasks.waits.enqueue(str(tmp_path / "mark1"))
    job = job_of(result)
    for turn in (1, 2):
        mark = tmp_path / f"mark{turn}"
        with running_worker(f"--worker-id={turn}", options={"MAX_TIMES_LOST": 2}) as worker:
            waits_for(mark)
            lose(worker)
        # Where the second run leaves its mark.
        type(job).objects.filter(id=job.id).update(
            arguments=job.arguments.replace("mark1", "mark2")
        )
        with running_worker(f"--worker-id=rescuer{turn}", "--queues=others", options={
            "MAX_TIMES_LOST": 2, **SHORT_LEASE}) as rescuer:  # fmt: skip
            rescuer.says("Rescued task")

    assert "it failed, as it was lost too often" in rescuer.log()
    assert outcomes_of(result) == ["lost", "lost"]
    result.refresh()
    assert result.status == TaskResultStatus.FAILED
    assert [error.exception_class.__name__ for error in result.errors] == ["WorkerLost"] * 2
    assert "MAX_TIMES_LOST" in result.errors[1].traceback


def test_suspended_worker_cannot_overwrite_what_its_successor_wrote(tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    result = tasks.waits_the_first_time.enqueue(str(mark), str(go))
    with running_worker("--worker-id=sleepy", options=SHORT_LEASE) as sleepy:
        child = int(waits_for(mark))
        sleepy.suspend()
        # The first run comes to its end meanwhile: its report waits for the sleeper.
        go.touch()
        eventually(lambda: state_of(child) in (None, "S", "Z"))
        with running_worker("--worker-id=heir", options=SHORT_LEASE) as heir:
            finished(result)
            assert heir.stops() == 0
        written = job_of(result)

        sleepy.signal(signal.SIGCONT)
        sleepy.says("It stops their children and starts anew")
        after = tasks.returns.enqueue("again")
        finished(after)
        assert sleepy.stops() == 0

    job = job_of(result)
    assert [(run.outcome, run.worker_name) for run in runs_of(result)] == [
        ("lost", "sleepy"),
        ("returned", "heir"),
    ]
    assert (job.epoch, job.finished_at, job.return_value) == (2, written.finished_at, "2")
    assert [(run.outcome, run.worker_name) for run in runs_of(after)] == [("returned", "sleepy")]
    assert Worker.objects.filter(name="sleepy", lost_at=None).count() == 1
    gone(child)


def test_suspended_worker_that_nobody_missed_goes_on(tmp_path: Path) -> None:
    """Nobody was there to rescue: its lease has ended, but its jobs are still its own."""
    mark, go = tmp_path / "mark", tmp_path / "go"
    result = tasks.waits.enqueue(str(mark), str(go))
    with running_worker() as worker:
        waits_for(mark)
        worker.suspend()
        Worker.objects.update(lease_expires_at="2000-01-01 00:00:00+00:00")
        worker.signal(signal.SIGCONT)
        go.touch()
        finished(result)
        assert worker.stops() == 0

    assert outcomes_of(result) == ["returned"]


def test_worker_that_lives_is_not_robbed(tmp_path: Path) -> None:
    """A task longer than the lease: the heartbeat renews it, whatever the task does."""
    mark, go = tmp_path / "mark", tmp_path / "go"
    result = tasks.waits.enqueue(str(mark), str(go))
    with (
        running_worker("--concurrency=1", options=SHORT_LEASE) as worker,
        running_worker("--concurrency=1", options=SHORT_LEASE),
    ):
        waits_for(mark)
        first = Worker.objects.get(pid=worker.pid).lease_expires_at
        # Until the lease that held at the start has ended by the others' beats.
        eventually(lambda: min(Worker.objects.values_list("heartbeat_at", flat=True)) > first)
        go.touch()
        finished(result)

    assert outcomes_of(result) == ["returned"]
    assert Run.objects.filter(outcome="lost").count() == 0


def test_grandchild_does_not_keep_a_killed_child_from_being_recorded(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    result = tasks.leaves_a_process_and_dies.enqueue(str(mark))

    run_worker("--batch")

    (run,) = runs_of(result)
    os.kill(int(mark.read_text()), signal.SIGKILL)
    assert (run.outcome, run.signal) == ("killed", 9)
