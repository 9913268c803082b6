"""Tasks in a module that receives the signals of Django Tasks and writes down what it heard."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from dayfly.compat import task_finished, task_started
from dayfly.models import Job

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task


def note(name, sender, task_result):
    """Append a line to the file in DAYFLY_TEST_HEARD."""
    job = Job.objects.get(id=task_result.id)
    line = {
        "signal": name,
        "id": task_result.id,
        "sender": f"{sender.__module__}.{sender.__qualname__}",
        "status": task_result.status,
        "row": job.status,
        "outcomes": list(job.runs.order_by("epoch").values_list("outcome", flat=True)),
        "errors": [error.exception_class_path for error in task_result.errors],
        "pid": os.getpid(),
        "parent": os.getppid(),
    }
    with open(os.environ["DAYFLY_TEST_HEARD"], "a") as file:
        file.write(json.dumps(line) + "\n")


def on_started(sender, task_result, **kwargs):
    note("started", sender, task_result)


def on_finished(sender, task_result, **kwargs):
    note("finished", sender, task_result)


task_started.connect(on_started)
task_finished.connect(on_finished)


@task
def returns():
    return os.getpid()


@task
def raises():
    raise ValueError("on purpose")


@task
def waits(mark):
    Path(mark).touch()
    signal.pause()


@task
def dies():
    os.kill(os.getpid(), signal.SIGKILL)
