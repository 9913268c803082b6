"""The project is replaced under a running worker: the next task runs in the new one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dayfly.models import Run
from tests.helpers import eventually
from tests.lifecycle import tasks
from tests.lifecycle.projects import add, make_release, perform, project_worker
from tests.workers import run_worker

pytestmark = pytest.mark.django_db(transaction=True)

REPLACED = "was replaced: the next tasks run in the new one"
#: Long enough for nobody's lease to matter, short enough to see the worker look around.
FLAGS = ("--concurrency=1", "--interval=0.2")


def point(link: Path, target: Path) -> None:
    """Let *link* point at *target*, in one step, as deployments do."""
    new = link.with_name("new")
    new.symlink_to(target)
    new.replace(link)


@pytest.mark.parametrize("per_child", [1, 0])
def test_symlink_that_moves_leads_to_the_new_release(tmp_path: Path, per_child: int) -> None:
    current = tmp_path / "current"
    point(current, make_release(tmp_path / "releases/r1", "r1"))
    second = make_release(tmp_path / "releases/r2", "r2")
    with project_worker(current, *FLAGS, f"--max-tasks-per-child={per_child}") as worker:
        assert perform("tells_release") == ["r1", str(tmp_path / "releases/r1"), str(current)]

        point(current, second)
        worker.says(REPLACED)
        name, directory, shell_says = perform("tells_release")
        perform("tells_release")

        assert worker.log().count(REPLACED) == 1

    assert (directory, shell_says) == (str(tmp_path / "releases/r2"), str(current))
    # A child that serves on keeps what it imported: only a child of its own is of one release.
    assert name == "r2" or per_child == 0


def test_directory_that_is_removed_and_copied_anew_is_found(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1")
    copy = make_release(tmp_path / "copy", "r2")
    with project_worker(site, *FLAGS) as worker:
        assert perform("tells_release") == ["r1", str(site), str(site)]

        shutil.rmtree(site)
        shutil.copytree(copy, site)
        assert perform("tells_release") == ["r2", str(site), str(site)]
        worker.says(REPLACED)
        perform("tells_release")

        assert worker.log().count(REPLACED) == 1
        assert worker.stops() == 0


def test_task_waits_for_a_directory_that_is_just_being_copied(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1")
    copy = make_release(tmp_path / "copy", "r2")
    with project_worker(site, *FLAGS):
        perform("tells_release")
        shutil.rmtree(site)
        job_id = add("tells_release")
        eventually(lambda: Run.objects.filter(job_id=job_id) or is_running(job_id))
        copy.rename(site)
        eventually(lambda: Run.objects.filter(job_id=job_id).exists())

    assert Run.objects.get(job_id=job_id).outcome == "returned"


def is_running(job_id: object) -> bool:
    from dayfly.models import Job

    return Job.objects.get(id=job_id).status == "RUNNING"


def test_directory_that_stays_away_fails_the_task_and_not_the_worker(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1")
    with project_worker(site, *FLAGS) as worker:
        perform("tells_release")
        site.rename(tmp_path / "elsewhere")
        job_id = add("tells_release")
        eventually(lambda: Run.objects.filter(job_id=job_id).exists())
        (tmp_path / "elsewhere").rename(site)
        assert perform("tells_release")[0] == "r1"
        assert worker.stops() == 0

    run = Run.objects.get(job_id=job_id)
    assert (run.outcome, run.exception_class_path) == (
        "raised",
        "dayfly.executor.errors.WorkdirGone",
    )
    assert str(site) in run.message


def test_worker_itself_sits_where_nothing_can_vanish(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1")
    with project_worker(site, *FLAGS) as worker:
        assert os.readlink(f"/proc/{worker.pid}/cwd") == "/"


def test_task_that_goes_elsewhere_does_not_take_the_next_along(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1")
    with project_worker(site, *FLAGS, "--max-tasks-per-child=0", "--standby=0"):
        assert perform("goes_elsewhere", str(tmp_path)) == str(tmp_path)
        assert perform("tells_release")[1:] == [str(site), str(site)]

    assert set(Run.objects.values_list("outcome", flat=True)) == {"returned"}


def test_workdir_flag_names_where_tasks_run(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1")
    place = tmp_path / "place"
    place.mkdir()
    with project_worker(site, *FLAGS, f"--workdir={place}"):
        assert perform("tells_release")[1:] == [str(place), str(place)]


def test_reload_starts_the_worker_again_when_a_loaded_module_changes(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1")
    with project_worker(site, *FLAGS, "--reload") as worker:
        perform("tells_release")

        (site / "site_helper.py").write_text("# changed\n")
        worker.says("site_helper.py changed: the worker starts again.")
        worker.says("Starting worker", times=2)

        assert perform("tells_release")[0] == "r1"
        assert worker.stops() == 0
    pids = {
        line.rpartition("pid=")[2] for line in worker.log().splitlines() if "Starting w" in line
    }
    assert pids == {str(worker.pid)}


def test_reload_is_not_for_modules_that_only_tasks_import(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1")
    with project_worker(site, *FLAGS, "--reload") as worker:
        assert perform("tells_release")[0] == "r1"
        (site / "release.py").write_text('NAME = "edited"\n')
        assert perform("tells_release")[0] == "edited"
        assert worker.log().count("Starting worker") == 1


def test_jobs_of_a_queue_that_left_the_settings_are_run() -> None:
    result = tasks.tells_context.using(queue_name="old").enqueue("word")

    run_worker("--batch", DAYFLY_TEST_QUEUES='["default"]')

    result.refresh()
    assert result.return_value == [1, result.id, "old", "RUNNING", "word"]
