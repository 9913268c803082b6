"""Parent side: what an operator reads. One line per event; arguments never appear."""

from __future__ import annotations

import logging
import os
import sys

from django.apps import apps

from dayfly.conf import Settings
from dayfly.executor import memory
from dayfly.executor.outcome import Outcome, RunReport
from dayfly.queue import Claim, Rescued
from dayfly.units import counted, growth, megabytes, seconds
from dayfly.worker.options import WorkerOptions

logger = logging.getLogger("dayfly.worker")


def starting(options: WorkerOptions) -> None:
    """Say who starts, and what the settings cost."""
    queues = "*" if options.queues is None else ",".join(options.queues)
    logger.info(
        "Starting worker worker_id=%s queues=%s exclude=%s concurrency=%d pid=%d",
        options.name,
        queues,
        ",".join(options.exclude_queues) or "-",
        options.concurrency,
        os.getpid(),
    )
    reading = memory.thorough()
    logger.info(
        "The parent costs RSS=%s RssAnon=%s USS=%s modules=%d apps=%d settings=%s",
        megabytes(reading.rss_bytes if reading else None),
        megabytes(reading.anon_bytes if reading else None),
        megabytes(reading.uss_bytes if reading else None),
        len(sys.modules),
        len(list(apps.get_app_configs())),
        os.environ.get("DJANGO_SETTINGS_MODULE", "-"),
    )
    if options.template_settings and not options.loads_project:
        logger.warning(
            "TEMPLATE_SETTINGS is without effect with launcher=%s: tasks see the settings of the"
            " worker.",
            options.launcher,
        )
    for name in _unheeded(options):
        logger.warning(
            "%s is without effect with launcher=%s, only with template.", name, options.launcher
        )
    if options.launcher not in ("fork", "inline"):
        logger.info(
            "Children come from launcher=%s settings=%s preload=%s",
            options.launcher,
            options.template_settings or os.environ.get("DJANGO_SETTINGS_MODULE", "-"),
            ",".join(options.preload) or "-",
        )
    if sys.dont_write_bytecode:
        logger.info(
            "PYTHONDONTWRITEBYTECODE is set: each child compiles the modules of its task anew,"
            " about 1 ms for each 100 lines. Unset it, or compile before: python -m compileall"
        )


def _unheeded(options: WorkerOptions) -> list[str]:
    """Name the options that were given for a template where there is none."""
    if options.launcher == "template":
        return []
    settings, default = options.settings, Settings()
    given = {
        "PRELOAD": options.preload,
        "TEMPLATE_WARM_UP": options.warm_up,
        # None: it never leaves, as one that is not there.
        "TEMPLATE_IDLE_SECONDS": options.template_idle_seconds
        not in (None, default.template_idle_seconds),
        "TEMPLATE_MAX_AGE_SECONDS": settings.template_max_age_seconds,
        "TEMPLATE_MAX_GROWTH_BYTES": settings.template_max_growth_bytes,
    }
    return [name for name, value in given.items() if value]


def stopping(options: WorkerOptions, *, running: int) -> None:
    """Say what a worker does that was asked to stop."""
    logger.info(
        "Stopping: no more claims, %s. Ask again to stop %s. worker_id=%s",
        counted(running, "task finishes", "tasks finish"),
        "it" if running == 1 else "them",
        options.name,
    )


def hurrying(*, running: int) -> None:
    """Say what a worker does that was asked twice, or for long."""
    logger.info(
        "Stopping %s.",
        counted(running, "running task: it goes back", "running tasks: they go back"),
    )


def stopped(options: WorkerOptions, count: int) -> None:
    """Say that a worker has come to its end, and was not ended."""
    logger.info("Stopped after %s. worker_id=%s", counted(count, "task"), options.name)


def finished(claim: Claim, report: RunReport, *, show_output: bool = False) -> None:
    """Say how a task ended, and what it held; with *show_output* also what it wrote."""
    if show_output:
        for text in report.output.decode("utf-8", "backslashreplace").splitlines():
            logger.info("%s| %s", claim.task_path, one_line(text, 2_000))
    start, end = report.memory_start, report.memory_end
    start_bytes = start.rss_bytes if start else None
    end_bytes = end.rss_bytes if end else None
    started_ns = report.started_ns or report.dispatched_ns
    took = (report.finished_ns - started_ns) / 1e9
    line = (
        f"Task {claim.task_path}: RSS={megabytes(start_bytes)} -> {megabytes(end_bytes)}"
        f" ({growth(start_bytes, end_bytes)}), peak {megabytes(report.peak_rss_bytes)},"
        f" {seconds(took)}"
    )
    if report.outcome is Outcome.RETURNED:
        logger.info("%s, successful id=%s", line, claim.job_id)
    elif report.outcome is Outcome.STOPPED:
        logger.info("%s, stopped: it goes back to its queue id=%s", line, claim.job_id)
    else:
        logger.error(
            "%s, failed (%s): %s id=%s", line, report.outcome.value, one_line(report.message),
            claim.job_id,
        )  # fmt: skip


def never_began(claim: Claim, report: RunReport) -> None:
    """Say why no child could take a task; the last line of what it wrote mostly tells."""
    lines = report.output.decode("utf-8", "backslashreplace").strip().splitlines()
    logger.error(
        "%s The task goes back to its queue, and no attempt is charged. id=%s%s",
        one_line(report.message),
        claim.job_id,
        f" The child's last words: {one_line(lines[-1])}" if lines else "",
    )


def heartbeat(name: str, figures: dict[str, int | None]) -> None:
    """Say what parent and children hold."""
    logger.info(
        "Heartbeat worker_id=%s RSS=%s RssAnon=%s VMS=%s children=%d PSS of children=%s",
        name,
        megabytes(figures["rss_bytes"]),
        megabytes(figures["anon_bytes"]),
        megabytes(figures["vms_bytes"]),
        figures["children"] or 0,
        megabytes(figures["children_pss_bytes"]),
    )


def rescued(job: Rescued) -> None:
    """Say that a job of a silent worker was given back, or given up."""
    logger.warning(
        "Rescued task %s id=%s: worker %s went silent during attempt %d; %s",
        job.task_path,
        job.job_id,
        job.worker_name,
        job.attempt,
        "it failed, as it was lost too often" if job.failed else "it is ready again",
    )


def one_line(text: str, max_chars: int = 500) -> str:
    """Make text of a task fit for a log line: no line breaks, no control characters, not endless."""
    shown = "".join(char if char.isprintable() else " " for char in text[:max_chars])
    return shown + ("..." if len(text) > max_chars else "")


def is_locked(claim: Claim, why: str) -> None:
    """Say that the outcome of a run waits for somebody else's transaction."""
    logger.warning(
        "The outcome of task %s id=%s waits: another session holds locks on its rows (%s)."
        " It is written when that session has committed.",
        claim.task_path,
        claim.job_id,
        one_line(why),
    )


def was_lost(options: WorkerOptions, *, jobs: int) -> None:
    """Say that others took this worker for dead."""
    logger.warning(
        "This worker was silent for longer than its lease of %g s, and others took over its"
        " %s; or somebody deleted its row. It stops their children and starts anew. worker_id=%s",
        options.lease_seconds,
        counted(jobs, "job"),
        options.name,
    )


def leaving_unwritten(options: WorkerOptions, *, outcomes: int) -> None:
    """Say what is lost with a worker that leaves while the database is away, or the rows are locked."""
    logger.error(
        "%d outcomes could not be written in the database. Their jobs run again when"
        " the lease of this worker has ended. worker_id=%s",
        outcomes,
        options.name,
    )


def ran_maximum(options: WorkerOptions) -> None:
    """Say why a worker leaves that was to run so many tasks. In the words of db_worker."""
    logger.info(
        "Run maximum tasks (%d) on worker=%s - exiting gracefully.", options.max_tasks, options.name
    )
