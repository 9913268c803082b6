"""Projects in directories of their own, for tests that change them under a running worker."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from dayfly import queue
from dayfly.models import FINISHED, Job
from tests.helpers import ROOT, eventually
from tests.workers import WorkerProcess, running_worker

MANAGE = """
    import os
    import sys

    if __name__ == "__main__":
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
"""
SETTINGS = """
    from tests.lifecycle.settings import *

    LOADED_AT_START = "helper module"
    import site_helper
"""
TASKS = """
    import os

    try:
        from django.tasks import task
    except ImportError:
        from django_tasks import task

    import release


    @task
    def tells_release():
        return [release.NAME, os.getcwd(), os.environ["PWD"]]


    @task
    def goes_elsewhere(path):
        os.chdir(path)
        return os.getcwd()
"""


def make_release(directory: Path, name: str, more: Mapping[str, str] | None = None) -> Path:
    """Write a small project that knows its *name*, with *more* files in it, by their paths."""
    files = {
        "manage.py": MANAGE,
        "site_settings.py": SETTINGS,
        "site_helper.py": "",
        "site_tasks.py": TASKS,
        "release.py": f"NAME = {name!r}\n",
        **(more or {}),
    }
    for file, text in files.items():
        path = directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())
    return directory


@contextmanager
def project_worker(directory: Path, *flags: str, **how: Any) -> Iterator[WorkerProcess]:
    """Start a worker in *directory*, as a shell that went there by this name would."""
    with running_worker(
        *flags,
        command=("manage.py", "runworker"),
        cwd=directory,
        settings="site_settings",
        PYTHONPATH=os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        PWD=str(directory),
        PYTHONDONTWRITEBYTECODE="1",
        **how,
    ) as worker:
        yield worker


def perform(name: str, *arguments: str) -> Any:
    """Enqueue a task of a project that this process does not have; return what it returned."""
    job_id = add(name, *arguments)
    # Its first run may wait for a template to be loaded.
    eventually(lambda: Job.objects.get(id=job_id).status in FINISHED, within=60, what=name)
    job = Job.objects.get(id=job_id)
    assert job.status == "SUCCESSFUL", job.runs.get().traceback
    return __import__("json").loads(job.return_value)


def add(name: str, *arguments: str) -> UUID:
    """Write the row of a task of a project."""
    quoted = ", ".join(f'"{each}"' for each in arguments)
    new = queue.NewJob(
        backend_name="default", queue_name="default", priority=0, task_path=name if "." in name else f"site_tasks.{name}",
        arguments=f'{{"args": [{quoted}], "kwargs": {{}}}}', run_after=None,
    )  # fmt: skip
    return queue.add(new, using="default").id
