"""The flags of the worker, and from flags and settings to a Worker. Shared by both command names."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from argparse import ArgumentParser
from functools import partial
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db.utils import Error
from django.utils.module_loading import import_string

from dayfly import queue
from dayfly.conf import Settings, is_there
from dayfly.exceptions import DayflyError
from dayfly.executor import AfterCalls, RecyclePolicy
from dayfly.management import arguments
from dayfly.management.progress import progress_bar
from dayfly.worker import settingsfile
from dayfly.worker.options import WorkerOptions, default_name, usable_cpus
from dayfly.worker.worker import Worker

logger = logging.getLogger("dayfly")

DESCRIPTION = (
    "Run background tasks, each in a process of its own, which dies with the task. "
    "Stop with Ctrl-C or SIGTERM: running tasks finish; ask twice to stop them, too."
)
LOG_FORMAT, LOG_MOMENT = "[{asctime}] {levelname} {message}", "%Y-%m-%d %H:%M:%S"
LOG_LEVELS = {0: logging.CRITICAL, 1: logging.INFO, 2: logging.DEBUG, 3: logging.DEBUG}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags; a flag that is not given leaves the matching option of TASKS in force."""
    which = parser.add_argument_group("which jobs")
    arguments.add_selection(
        which,
        queues="Queues to serve, separated by commas; * for all (default: all).",
        exclude="Queues to leave out, separated by commas; only when all are served.",
        backend="The entry of TASKS whose jobs are run (default: default).",
    )
    how = parser.add_argument_group("how they are run")
    how.add_argument(
        "--concurrency", type=arguments.positive, default=None, metavar="N",
        help="How many tasks run at once (default: CONCURRENCY, or one for each usable CPU).",
    )  # fmt: skip
    how.add_argument(
        "--max-tasks-per-child", type=arguments.count, default=None, metavar="N",
        help="Replace a child after N tasks; 0: never (default: MAX_TASKS_PER_CHILD, or 1).",
    )  # fmt: skip
    how.add_argument(
        "--max-tasks-per-child-jitter", type=arguments.count, default=None, metavar="N",
        help="Up to N tasks more, drawn for each child (default: 0).",
    )  # fmt: skip
    how.add_argument(
        "--launcher", choices=("fork", "template", "spawn", "inline"), default=None,
        help="How children come to be: forked from the worker, forked from a template that has loaded "
             "the project, or each a fresh interpreter; inline: tasks run in the worker itself, for "
             "debugging and tests (default: LAUNCHER, or template when --template-settings is given, "
             "else fork).",
    )  # fmt: skip
    how.add_argument(
        "--template-settings", default=None, metavar="MODULE",
        help="The settings of what tasks see, when the worker runs on leaner ones (default: TEMPLATE_SETTINGS).",
    )  # fmt: skip
    how.add_argument(
        "--preload", default=None, metavar="MODULES",
        help="Modules that the template imports, separated by commas, besides the tasks of each app "
             "(default: PRELOAD).",
    )  # fmt: skip
    how.add_argument(
        "--template-idle-seconds", type=arguments.seconds, default=None, metavar="SECONDS",
        help="Let the template go when nothing was to be done for so long; it starts again with the "
             "next task (default: TEMPLATE_IDLE_SECONDS, or 600).",
    )  # fmt: skip
    how.add_argument(
        "--standby", type=arguments.count, default=None, metavar="N",
        help="Children forked ahead (default: STANDBY, or as many as run at once).",
    )  # fmt: skip
    how.add_argument(
        "--workdir", default=None, metavar="DIR",
        help="Where tasks run: a path, which may be a symlink that deployments move "
             "(default: WORKDIR, or where the worker was started).",
    )  # fmt: skip
    how.add_argument(
        "--worker-id", default=None, metavar="ID",
        help="The name of this worker; no two may share one (default: host name and random).",
    )  # fmt: skip
    how.add_argument(
        "--show-output", action="store_true",
        help="Log what each task wrote to stdout and stderr when it ends; it is recorded anyway.",
    )  # fmt: skip
    until = parser.add_argument_group("when it looks, and when it leaves")
    until.add_argument(
        "--interval", type=arguments.seconds, default=None, metavar="SECONDS",
        help="Look into the queue at least so often (default: INTERVAL, or 1).",
    )  # fmt: skip
    until.add_argument("--batch", action="store_true", help="Leave when the queue is empty.")
    until.add_argument(
        "--max-tasks",
        type=arguments.positive,
        default=None,
        metavar="N",
        help="Leave after N tasks.",
    )
    until.add_argument(
        "--grace", type=arguments.seconds, default=None, metavar="SECONDS",
        help="After the first request to stop, let tasks run so long, then stop them and give "
             "their jobs back (default: GRACE_SECONDS, or until they finish).",
    )  # fmt: skip
    until.add_argument(
        "--reload", action=argparse.BooleanOptionalAction, default=django_settings.DEBUG,
        help="Start again when a loaded source file changes (default: settings.DEBUG).",
    )  # fmt: skip
    until.add_argument(
        "--no-startup-delay", dest="startup_delay", action="store_false",
        help="Accepted for db_worker's sake: this worker does not delay its start.",
    )  # fmt: skip


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    """
    Run a worker as *options* say.

    Raises:
        CommandError: an option is wrong, or the worker cannot start; one sentence says why.
    """
    _configure_logging(options["verbosity"], command.stdout)
    try:
        worker_options = make_options(options)
        with progress_bar(partial(_count_ready, worker_options), unit="task") as on_finished:
            worker = Worker(worker_options, on_finished=on_finished)
            worker.run()
    except (DayflyError, ImproperlyConfigured) as error:
        raise CommandError(str(error)) from error
    except Error as error:
        message = (
            f"The database cannot be used: {' '.join(str(error).split()).rstrip('.?!')}. "
            "Is the server up (of SQLite: may its directory be written to), and is DATABASES right?"
        )
        raise CommandError(message) from error
    if worker.wants_reload:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def make_options(options: dict[str, Any]) -> WorkerOptions:
    """
    Put flags over settings.

    Raises:
        CommandError: the backend is not dayfly's, or two flags contradict each other.
    """
    backend = arguments.database_backend(options["backend_name"])
    settings: Settings = backend.settings

    def chosen(flag: str, option: str) -> Any:
        return options[flag] if options.get(flag) is not None else getattr(settings, option)

    queues = arguments.queue_names(options["queues"])
    exclude = arguments.names(options["exclude_queues"])
    arguments.warn_of_unknown_queues(backend, queues + exclude)
    if exclude and "*" not in queues:
        raise CommandError("--exclude-queues can only be used with --queues=*")
    worker_id = options["worker_id"]
    if worker_id is not None and not 0 < len(worker_id) <= 64:
        raise CommandError("--worker-id must have 1 to 64 characters")
    template_settings = chosen("template_settings", "template_settings")
    _refuse_missing_settings(template_settings)
    preload = options.get("preload")
    return WorkerOptions(
        settings=settings,
        launcher=chosen("launcher", "launcher") or ("template" if template_settings else "fork"),
        template_settings=template_settings,
        preload=settings.preload if preload is None else arguments.names(preload),
        warm_up=settings.template_warm_up or "",
        template_idle_seconds=chosen("template_idle_seconds", "template_idle_seconds"),
        backend_name=options["backend_name"],
        using=backend.database,
        name=worker_id or default_name(),
        queues=None if "*" in queues else queues,
        exclude_queues=exclude,
        concurrency=chosen("concurrency", "concurrency") or usable_cpus(),
        policy=_policy(
            settings,
            chosen("max_tasks_per_child", "max_tasks_per_child"),
            chosen("max_tasks_per_child_jitter", "max_tasks_per_child_jitter"),
        ),
        standby=chosen("standby", "standby"),
        max_tasks=options["max_tasks"],
        batch=options["batch"],
        interval=chosen("interval", "interval"),
        grace_seconds=chosen("grace", "grace_seconds"),
        workdir=chosen("workdir", "workdir"),
        reload=options["reload"] and not options["batch"],
        show_output=options["show_output"],
        **({} if settings.look_ahead is None else {"look_ahead": settings.look_ahead}),
    )


def _refuse_missing_settings(module: str | None) -> None:
    """Refuse what every template would fail on, for as long as the worker lives."""
    # First without imports: a package may be one that only tasks can import, or are to pay for.
    if module and settingsfile.find(module) is None and not is_there(module):
        message = (
            f"There is no settings module {module!r}: correct TEMPLATE_SETTINGS or"
            " --template-settings, or see to it that the module can be imported."
        )
        raise CommandError(message)


def _count_ready(options: WorkerOptions) -> int | None:
    """Return how many jobs a batch has to run; None where no end is in sight."""
    return queue.count_ready(options.selection, using=options.using) if options.batch else None


def _policy(settings: Settings, calls: int, jitter: int) -> RecyclePolicy:
    if settings.recycle_policy is None:
        return AfterCalls(calls, jitter)
    try:
        make = import_string(settings.recycle_policy)
    except ImportError as error:
        message = f"RECYCLE_POLICY {settings.recycle_policy!r} cannot be imported: {error}"
        raise CommandError(message) from error
    try:
        made: RecyclePolicy = make()
    except Exception as error:
        message = (
            f"RECYCLE_POLICY {settings.recycle_policy!r} is to be a class that is made without "
            f"arguments, and failed: {type(error).__name__}: {error}"
        )
        raise CommandError(message) from error
    return made


def _configure_logging(verbosity: int, stream: Any) -> None:
    """Log to the terminal unless the project's LOGGING says where to, and as much as it says."""
    if verbosity != 1 or logger.level == logging.NOTSET:  # 1 is what nobody asked for
        logger.setLevel(LOG_LEVELS[verbosity])
    if not logger.hasHandlers():
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter(LOG_FORMAT, LOG_MOMENT, "{"))
        logger.addHandler(handler)
