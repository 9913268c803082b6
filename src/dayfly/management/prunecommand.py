"""`manage.py dayfly prune`: finished jobs, their runs, and the rows of workers that ended are deleted."""

from __future__ import annotations

from argparse import ArgumentParser
from functools import partial
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db.utils import Error

from dayfly import queue
from dayfly.exceptions import DayflyError
from dayfly.management import arguments
from dayfly.management.progress import progress_bar
from dayfly.queue import prunings
from dayfly.units import counted

DESCRIPTION = (
    "Delete jobs that finished long ago, with their runs, and the rows of workers that ended."
    " Jobs that wait or run are never touched."
)
#: How many jobs go in one transaction.
JOBS_AT_ONCE = 500


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags; those of django-tasks-db's prune_db_task_results are understood."""
    parser.add_argument(
        "--min-age-days", type=arguments.days, default=14.0, metavar="DAYS",
        help="Delete jobs that ended so long ago (default: 14); 0: all that have ended.",
    )  # fmt: skip
    parser.add_argument(
        "--failed-min-age-days", type=arguments.days, default=None, metavar="DAYS",
        help="The same for jobs that failed (default: as --min-age-days).",
    )  # fmt: skip
    arguments.add_selection(
        parser,
        queues="Only jobs of these queues, separated by commas (default: *, all).",
        exclude="No jobs of these queues, separated by commas.",
        backend="The entry of TASKS whose jobs are deleted (default: default).",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="Delete nothing, and say what would be deleted."
    )


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    """
    Prune as *options* say.

    Raises:
        CommandError: an option is wrong, or the database cannot be used; one sentence says why.
    """
    try:
        backend = arguments.database_backend(options["backend_name"])
        using = backend.database
    except (DayflyError, ImproperlyConfigured) as error:
        raise CommandError(str(error)) from error
    pruning = make_pruning(options)
    is_silent = options["verbosity"] == 0
    if not is_silent:
        arguments.warn_of_unknown_queues(backend, (*(pruning.queues or ()), *pruning.exclude))
    try:
        if options["dry_run"]:
            jobs, workers = prunings.count_prunable(pruning, using=using), None
        else:
            jobs = _prune(pruning, using, shows_progress=not is_silent)
            workers = prunings.prune_workers(pruning, using=using)
    except Error as error:
        message = (
            f"The database cannot be used: {' '.join(str(error).split()).rstrip('.?!')}. What was"
            f" deleted before stays so. Is the server up, and was `migrate dayfly"
            f" --database={using}` run?"
        )
        raise CommandError(message) from error
    if not is_silent:
        command.stdout.write(_told(jobs, workers))


def _told(jobs: int, workers: int | None) -> str:
    what = counted(jobs, "finished job with its runs", "finished jobs with their runs")
    if workers is None:
        return f"Would delete {what}."
    return f"Deleted {what}, and {counted(workers, 'row of a worker', 'rows of workers')}."


def make_pruning(options: dict[str, Any]) -> queue.Pruning:
    """
    Read which jobs are meant.

    Raises:
        CommandError: --queues names none.
    """
    names = arguments.queue_names(options["queues"])
    failed = options["failed_min_age_days"]
    return queue.Pruning(
        backend_name=options["backend_name"],
        queues=None if "*" in names else names,
        exclude=arguments.names(options["exclude_queues"]),
        min_age_days=options["min_age_days"],
        failed_min_age_days=options["min_age_days"] if failed is None else failed,
    )


def _prune(pruning: queue.Pruning, using: str, *, shows_progress: bool) -> int:
    total = 0
    count_all = partial(prunings.count_prunable, pruning, using=using)
    with progress_bar(count_all if shows_progress else lambda: None, unit="job") as done:
        while count := prunings.prune(pruning, limit=JOBS_AT_ONCE, using=using):
            total += count
            done(count)
    return total
