"""
The plain design of a fork-per-task worker, as tutorials show it, without needless slowness.

Claim a row with select_for_update(skip_locked), close the parent's connection so
that the child does not inherit it, run the task in a multiprocessing.Process,
join it, save how it ended. Memory is logged before and after, as it is there.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
from typing import Any

import psutil
from django.core.management.base import BaseCommand
from django.db import connection, transaction
from django.utils import timezone

from bench_project.models import PlainJob

logger = logging.getLogger(__name__)


def log_memory(label: str) -> None:
    """Log the RSS of this process."""
    rss = psutil.Process(os.getpid()).memory_info().rss
    logger.info("[%s] pid=%s RSS=%.1fMB", label, os.getpid(), rss / 1024 / 1024)


def run_in_child(task_name: str, task_params: dict[str, Any]) -> None:
    """Import the function and call it; the process ends with it."""
    log_memory("child-start")
    module_path, function_name = task_name.rsplit(".", 1)
    function = getattr(importlib.import_module(module_path), function_name)
    function(**task_params)
    log_memory("child-end")


def claim() -> PlainJob | None:
    """Take the oldest waiting job."""
    # SQLite has no row locks: BEGIN IMMEDIATE (see the settings) does what they do.
    skip_locked = connection.features.has_select_for_update_skip_locked
    with transaction.atomic():
        job = (
            PlainJob.objects.select_for_update(skip_locked=skip_locked)
            .filter(status="QUEUED")
            .order_by("created_at")
            .first()
        )
        if job is not None:
            job.status = "PROGRESS"
            job.started_at = timezone.now()
            job.save(update_fields=["status", "started_at"])
    return job


def execute(job: PlainJob) -> None:
    """Run one job in a process of its own and save how it ended."""
    log_memory("parent-before-fork")
    connection.close()
    process = multiprocessing.get_context("fork").Process(
        target=run_in_child, args=(job.task_name, job.task_params)
    )
    process.start()
    process.join()
    log_memory("parent-after-join")
    if process.exitcode == 0:
        job.status = "COMPLETED"
    else:
        job.status = "FAILED"
        job.error = f"Child exited with code {process.exitcode}"
    job.completed_at = timezone.now()
    job.save(update_fields=["status", "completed_at", "error"])


class Command(BaseCommand):
    """Run jobs until there are none."""

    help = __doc__

    def handle(self, **options: object) -> None:
        """Drain the queue."""
        logging.basicConfig(level=logging.INFO)
        while (job := claim()) is not None:
            execute(job)
