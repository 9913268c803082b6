"""Parent side: from the options of a worker to the executor that it works with."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from dayfly.executor import Call, Executor, Outcome, RunReport, Source, Terms
from dayfly.worker import afterfork
from dayfly.worker.options import WorkerOptions
from dayfly.worker.order import Order
from dayfly.worker.settingsfile import SettingsFile

#: Names that people know to names of the executor: a parent that changes no more forks from its copy.
LAUNCHERS = {"fork": "copy", "template": "template", "spawn": "spawn"}

#: For a job that there never was.
SOME_TIME = "2000-01-01T00:00:00+00:00"


def make_executor(
    options: WorkerOptions, *, workdir: str, before_fork: Callable[[], None]
) -> Executor:
    """
    Make the executor; it starts no process yet.

    Raises:
        CannotStart: what the children must know cannot be told to a fresh interpreter.
    """
    settings = options.settings
    # A value is JSON of at most max_result_bytes; perform sees to that.
    max_value_bytes = max(settings.max_result_bytes, settings.max_arguments_bytes) + (64 << 10)
    if options.is_inline:
        # No hooks: they are for what a child must not have, and this process must keep.
        return Executor(
            launcher="inline",
            record_by_hand=True,
            memory_budget_bytes=settings.memory_budget_bytes,
            terms=Terms(max_value_bytes=max_value_bytes),
        )
    return Executor(
        concurrency=options.concurrency,
        policy=options.policy,
        standby=options.standby,
        record_by_hand=True,
        launcher=LAUNCHERS[options.launcher],
        source=_source(options),
        idle_seconds=options.template_idle_seconds if options.launcher == "template" else None,
        memory_budget_bytes=settings.memory_budget_bytes,
        terms=Terms(
            use_cgroup=True,
            workdir=workdir,
            before_fork=(before_fork,),
            after_fork=(afterfork.forget_inherited,),
            before_exit=(afterfork.close_connections,),
            rehearsal=_rehearsal(options),
            max_value_bytes=max_value_bytes,
            max_output_bytes=settings.max_output_bytes,
        ),
    )


def _rehearsal(options: WorkerOptions) -> Call:
    order = Order(
        job_id=str(UUID(int=0)),
        task_path="",
        backend_name=options.backend_name,
        queue_name="default",
        priority=0,
        run_after=None,
        attempt=1,
        enqueued_at=SOME_TIME,
        started_at=SOME_TIME,
        last_attempted_at=SOME_TIME,
        worker_name=options.name,
    )
    return Call(
        target="dayfly.worker.rehearsal.perform", payload=order.encode('{"args": [], "kwargs": {}}')
    )


def stopped(report: RunReport) -> RunReport:
    """Make of the report of an inline task that was interrupted what that of a stopped child would be."""
    if (
        report.failure is None
        or report.failure.exception_class_path != "builtins.KeyboardInterrupt"
    ):
        return report  # it came to its end before
    message = "The task was interrupted in the worker that ran it, because the worker stops."
    return replace(report, outcome=Outcome.STOPPED, message=message, failure=None)


def settings_of_template(options: WorkerOptions) -> SettingsFile | None:
    """Return the file of settings that templates load, to be watched. Call it where the worker was started."""
    module = _settings_module(options)
    return SettingsFile(module) if module and options.launcher == "template" else None


def _settings_module(options: WorkerOptions) -> str:
    return options.template_settings or os.environ.get("DJANGO_SETTINGS_MODULE", "")


def _source(options: WorkerOptions) -> Source:
    module = _settings_module(options)
    # What is to be reloaded must not be loaded ahead: children import it anew.
    is_ahead = options.launcher == "template" and not options.reload
    return Source(
        environment={"DJANGO_SETTINGS_MODULE": module} if module else {},
        set_up="dayfly.worker.project.set_up",
        preload=options.preload if is_ahead else (),
        find_modules="dayfly.worker.project.task_modules" if is_ahead else "",
        warm_up=options.warm_up if is_ahead else "",
        find_unsafe="dayfly.worker.project.open_connections",
        immortal=options.settings.immortal,
        huge_pages=options.settings.huge_pages,
        falls_back=options.template_settings is None,
        max_age_seconds=options.settings.template_max_age_seconds,
        max_growth_bytes=options.settings.template_max_growth_bytes,
    )
