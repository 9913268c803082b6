"""The queue of each system behind one small face: put a job in, count what became of them."""

from __future__ import annotations

import os
from typing import Protocol

from bench_project.models import PlainJob


class Queue(Protocol):
    """What the commands of the benchmark ask of a queue."""

    def add(self, task_name: str, number: int) -> None:
        """Enqueue the task as an application would."""

    def statuses(self) -> list[str]:
        """Return the status of every job; "done" for one that succeeded."""

    def worker_rss_bytes(self) -> int | None:
        """Return what the system recorded of its parent's memory, if it records that."""


class TaskQueue:
    """A backend of Django's tasks."""

    def add(self, task_name: str, number: int) -> None:
        """Enqueue the task."""
        from bench_project import tasks

        getattr(tasks, task_name).enqueue(number)

    def worker_rss_bytes(self) -> int | None:
        """Nothing is recorded."""
        return None


class DayflyQueue(TaskQueue):
    """dayfly's rows."""

    def statuses(self) -> list[str]:
        """Return the status of every job."""
        from dayfly.models import Job

        return [
            "done" if status == "SUCCESSFUL" else status
            for status in Job.objects.values_list("status", flat=True)
        ]

    def worker_rss_bytes(self) -> int | None:
        """Return the RSS in the row of the last worker."""
        from dayfly.models import Worker

        return Worker.objects.order_by("-started_at").values_list("rss_bytes", flat=True).first()


class DbWorkerQueue(TaskQueue):
    """The rows of django-tasks-db."""

    def statuses(self) -> list[str]:
        """Return the status of every job."""
        from django_tasks_db.models import DBTaskResult

        return [
            "done" if status == "SUCCESSFUL" else status
            for status in DBTaskResult.objects.values_list("status", flat=True)
        ]


class PlainQueue:
    """The rows of the plain design."""

    def add(self, task_name: str, number: int) -> None:
        """Write one row."""
        PlainJob.objects.create(
            task_name=f"bench_project.work.{task_name}", task_params={"number": number}
        )

    def statuses(self) -> list[str]:
        """Return the status of every job."""
        return [
            "done" if status == "COMPLETED" else status
            for status in PlainJob.objects.values_list("status", flat=True)
        ]

    def worker_rss_bytes(self) -> int | None:
        """Nothing is recorded."""
        return None


def queue() -> Queue:
    """Return the queue that DAYFLY_BENCH_SYSTEM names."""
    queues = {"dayfly": DayflyQueue, "db_worker": DbWorkerQueue, "plain": PlainQueue}
    return queues[os.environ["DAYFLY_BENCH_SYSTEM"]]()
