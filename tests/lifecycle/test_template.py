"""A worker whose children come from a template: what tasks see, releases, deaths, rest, and refusals."""

from __future__ import annotations

import os
import shutil
import signal
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from dayfly.models import Job, Run
from tests.helpers import alive, children_of, eventually
from tests.lifecycle.projects import add, make_release, perform, project_worker
from tests.workers import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)

SETTINGS = """
    from tests.lifecycle.settings import *

    INSTALLED_APPS = [*INSTALLED_APPS, "site_app"]
"""
#: Without the apps of the project, and without what these need.
LEAN = """
    from tests.lifecycle.settings import DATABASES, SECRET_KEY, TASKS, USE_TZ

    INSTALLED_APPS = ["dayfly"]
"""
MODELS = """
    from django.db import models


    class Thing(models.Model):
        class Meta:
            managed = False
"""
TASKS = """
    import sys

    try:
        from django.tasks import task
    except ImportError:
        from django_tasks import task

    import release
    from site_app.models import Thing

    LOADED_BY = sys.argv[0]


    @task
    def tells_release():
        return release.NAME


    @task
    def tells_settings():
        from django.conf import settings
        from django.contrib.auth.models import Group

        return [settings.SETTINGS_MODULE, Thing._meta.label, Group.objects.count()]


    @task
    def appends(path, line):
        with open(path, "a") as file:
            file.write(line + "\\\\n")


    @task
    def begins_and_waits(mark, path):
        import pathlib
        import time

        with open(mark, "a") as file:
            file.write("begun\\\\n")
        while not pathlib.Path(path).exists():
            time.sleep(0.01)
"""
APP = {
    "site_settings.py": SETTINGS,
    "lean_settings.py": LEAN,
    "site_app/__init__.py": "",
    "site_app/models.py": MODELS,
    "site_app/tasks.py": TASKS.replace("\\\\n", "\\n"),
}
FLAGS = ("--concurrency=2", "--interval=0.2")


@contextmanager
def lean_worker(site: Path, *flags: str, **how: Any) -> Iterator[WorkerProcess]:
    """Run a worker on lean settings, whose tasks see the full ones."""
    more = ("--settings=lean_settings", "--template-settings=site_settings", *flags)
    with project_worker(site, *FLAGS, *more, **how) as worker:
        yield worker


def in_app(name: str) -> str:
    return f"site_app.tasks.{name}"


def template_of(worker: WorkerProcess) -> int:
    """Return the one template of *worker*, once it has loaded the project."""

    def found() -> int | None:
        pids = [
            pid
            for pid in children_of(worker.pid)
            if "dayfly: template" in Path(f"/proc/{pid}/cmdline").read_text()
        ]
        return pids[0] if len(pids) == 1 else None

    return eventually(found, within=60, what="a template")


def test_tasks_see_the_whole_project_and_the_worker_does_not(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1", APP)

    with lean_worker(site) as worker:
        settings, label, groups = perform(in_app("tells_settings"))
        assert worker.stops() == 0

    assert (settings, label, groups) == ("site_settings", "site_app.Thing", 0)
    assert "apps=1 settings=lean_settings" in worker.log()
    (run,) = Run.objects.all()
    # The module of the task, the models and what they need were there already.
    assert run.new_modules < 20


def test_template_that_is_forked_from_without_settings_of_its_own_has_the_tasks(
    tmp_path: Path,
) -> None:
    site = make_release(tmp_path / "site", "r1", APP)

    with project_worker(site, *FLAGS, "--launcher=template") as worker:
        assert perform(in_app("tells_release")) == "r1"
        assert worker.stops() == 0

    assert Run.objects.get().new_modules == 0


@pytest.mark.parametrize("how", ["symlink", "copy"])
def test_new_release_comes_with_a_new_template(tmp_path: Path, how: str) -> None:
    first = make_release(tmp_path / "releases/r1", "r1", APP)
    second = make_release(tmp_path / "releases/r2", "r2", APP)
    current = tmp_path / "current"
    if how == "symlink":
        current.symlink_to(first)
    else:
        shutil.copytree(first, current)
    with lean_worker(current) as worker:
        assert perform(in_app("tells_release")) == "r1"
        old = template_of(worker)

        if how == "symlink":
            (tmp_path / "new").symlink_to(second)
            (tmp_path / "new").replace(current)
        else:
            shutil.rmtree(current)
            shutil.copytree(second, current)
        worker.says("was replaced: the next tasks run in the new one")
        eventually(lambda: not alive(old), within=60, what="the end of the old template")

        assert perform(in_app("tells_release")) == "r2"
        assert Run.objects.latest("id").new_modules == 0  # from the new template
        assert template_of(worker) != old
        assert worker.stops() == 0


def test_changed_settings_come_with_a_new_template(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1", APP)
    with lean_worker(site) as worker:
        assert perform(in_app("tells_settings"))[0] == "site_settings"
        old = template_of(worker)

        (site / "site_settings.py").write_text("raise RuntimeError('half of a change')\n")
        worker.says("The new template was not taken", within=60)
        assert "half of a change" in worker.log()
        assert perform(in_app("tells_release")) == "r1"
        assert template_of(worker) == old

        text = textwrap.dedent(APP["site_settings.py"])
        (site / "site_settings.py").write_text(f"{text}\nSETTINGS_MODULE = 'changed'\n")
        eventually(lambda: not alive(old), within=60, what="the end of the old template")

        assert perform(in_app("tells_settings"))[0] == "changed"
        assert worker.log().count("site_settings.py were changed: tasks see them") == 2
        assert worker.stops() == 0
    assert set(Run.objects.values_list("outcome", flat=True)) == {"returned"}


def test_killed_template_during_a_drain_loses_and_doubles_nothing(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1", APP)
    marks, go = tmp_path / "marks", tmp_path / "go"
    with lean_worker(site) as worker:
        jobs = [add(in_app("begins_and_waits"), str(marks), str(go)) for _ in range(2)]
        eventually(lambda: marks.exists() and marks.read_text().count("begun") == 2, within=60)
        worker.signal(signal.SIGTERM)
        worker.says("Stopping: no more claims, 2 tasks finish.")

        os.kill(template_of(worker), signal.SIGKILL)
        go.touch()

        assert worker.ends() == 0

    assert marks.read_text() == "begun\nbegun\n"
    runs = Run.objects.filter(job_id__in=jobs)
    assert sorted(runs.values_list("outcome", "attempt")) == [("returned", 1)] * 2
    assert set(Job.objects.values_list("status", flat=True)) == {"SUCCESSFUL"}


def test_killed_template_under_work_does_every_job_once(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1", APP)
    lines = tmp_path / "lines"
    with lean_worker(site) as worker:
        jobs = [add(in_app("appends"), str(lines), str(number)) for number in range(60)]
        for count in (10, 30):
            eventually(lambda: Run.objects.count() >= count, within=60)  # noqa: B023 - used at once
            os.kill(template_of(worker), signal.SIGKILL)
        eventually(lambda: Run.objects.count() == 60, within=60, what="60 runs")
        assert worker.stops() == 0

    assert sorted(lines.read_text().split(), key=int) == [str(number) for number in range(60)]
    assert set(Run.objects.values_list("outcome", flat=True)) == {"returned"}
    assert {job.status for job in Job.objects.filter(id__in=jobs)} == {"SUCCESSFUL"}


def test_idle_template_leaves_and_comes_back_with_the_next_task(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1", APP)
    with lean_worker(site, "--template-idle-seconds=0.5") as worker:
        assert perform(in_app("tells_release")) == "r1"
        eventually(lambda: not children_of(worker.pid), within=60, what="a worker alone")

        assert perform(in_app("tells_release")) == "r1"
        assert worker.stops() == 0


THREAD = """
    import threading
    import time

    threading.Thread(target=time.sleep, args=(600,), name="metrics", daemon=True).start()
"""
CONNECTION = """
    from django.db import connection

    connection.ensure_connection()
"""


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (THREAD, "left 1 thread running (metrics)"),
        (CONNECTION, "left an open connection to database default"),
    ],
    ids=["thread", "connection"],
)
def test_module_that_must_not_be_forked_is_named_and_copies_of_the_worker_serve(
    tmp_path: Path, text: str, left: str
) -> None:
    site = make_release(tmp_path / "site", "r1", {**APP, "site_unsafe.py": text})
    with project_worker(site, *FLAGS, "--launcher=template", "--preload=site_unsafe") as worker:
        assert perform(in_app("tells_release")) == "r1"
        assert worker.stops() == 0

    assert f"No template: importing site_unsafe {left}" in worker.log()
    assert "Children are forked from a copy of this process instead" in worker.log()
    assert worker.log().count("No template") == 1


def test_with_settings_of_its_own_nothing_else_serves_until_the_module_is_mended(
    tmp_path: Path,
) -> None:
    site = make_release(tmp_path / "site", "r1", {**APP, "site_unsafe.py": THREAD})
    with lean_worker(site, "--preload=site_unsafe") as worker:
        job_id = add(in_app("tells_release"))
        worker.says("No template: importing site_unsafe left 1 thread running (metrics)", within=60)
        worker.says("Nothing is run until there is one, which is tried again: mend this")
        assert not Run.objects.exists()

        (site / "site_unsafe.py").write_text("# mended\n")
        eventually(lambda: Run.objects.filter(job_id=job_id).exists(), within=60)
        assert worker.stops() == 0

    assert Run.objects.get().outcome == "returned"
    assert Run.objects.get().attempt == 1


def test_broken_tasks_of_one_app_are_named_and_the_others_run(tmp_path: Path) -> None:
    site = make_release(
        tmp_path / "site",
        "r1",
        {
            **APP,
            "site_settings.py": SETTINGS + '    INSTALLED_APPS += ["site_other"]\n',
            "site_other/__init__.py": "",
            "site_other/tasks.py": "import no_such_library\n",
        },
    )
    with lean_worker(site) as worker:
        assert perform(in_app("tells_release")) == "r1"
        job_id = add("site_other.tasks.build")
        eventually(lambda: Run.objects.filter(job_id=job_id).exists(), within=60)
        assert worker.stops() == 0

    assert "leaves out what could not be loaded: importing site_other.tasks failed" in worker.log()
    run = Run.objects.get(job_id=job_id)
    assert run.outcome == "raised"
    assert "no_such_library" in run.message


def test_reloading_worker_loads_no_tasks_ahead(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1", APP)
    with project_worker(site, *FLAGS, "--launcher=template", "--reload") as worker:
        assert perform(in_app("tells_release")) == "r1"
        (site / "release.py").write_text('NAME = "edited"\n')
        assert perform(in_app("tells_release")) == "edited"
        assert worker.log().count("Starting worker") == 1
        assert worker.stops() == 0


@pytest.mark.parametrize(("launcher", "is_named"), [("fork", True), ("spawn", False)])
def test_threads_are_named_where_they_may_be_forked(
    tmp_path: Path, launcher: str, is_named: bool
) -> None:
    thread = "\nimport threading\nthreading.Thread(target=threading.Event().wait, name='meddler', daemon=True).start()\n"
    site = make_release(tmp_path / "site", "r1", {**APP, "lean_settings.py": dedent(LEAN) + thread})

    with project_worker(
        site, *FLAGS, "--settings=lean_settings", f"--launcher={launcher}"
    ) as worker:
        assert worker.stops() == 0

    assert ("1 threads run besides the worker (meddler)" in worker.log()) is is_named


def test_spawned_children_see_the_full_settings(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1", APP)
    with lean_worker(site, "--launcher=spawn") as worker:
        settings, *_ = perform(in_app("tells_settings"))
        assert worker.stops() == 0

    assert settings == "site_settings"


def test_job_whose_spawned_child_cannot_load_the_project_goes_back(tmp_path: Path) -> None:
    site = make_release(tmp_path / "site", "r1", APP)
    settings = site / "site_settings.py"
    sound = settings.read_text()
    with lean_worker(site, "--launcher=spawn", "--max-tasks=1", complains=True) as worker:
        settings.write_text(f"{sound}\nimport nowhere_to_be_found\n")
        job_id = add(in_app("tells_settings"))
        worker.says("The task goes back to its queue, and no attempt is charged.", times=2)
        assert "No module named 'nowhere_to_be_found'" in worker.log()
        assert "failed (" not in worker.log()
        settings.write_text(sound)
        eventually(lambda: Job.objects.get(id=job_id).status == "SUCCESSFUL", within=60)
        assert worker.ends() == 0

    assert [(run.attempt, run.outcome) for run in Run.objects.filter(job_id=job_id)] == [
        (1, "returned")
    ]
