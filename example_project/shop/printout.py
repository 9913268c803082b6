"""
What the demo prints: one line for each run, then what there is to see in them.

Everything is read from the rows that the worker wrote. An unknown figure is a dash.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings

from dayfly.models import Run

MB = 1_000_000
#: How the tasks end that do not return. That they end so is what they are for.
ENDINGS = {"raises": "raised", "is_killed": "killed", "runs_too_long": "timed_out"}
#: In words alone: a run records the worker and its child, not what the child was forked from.
ABOUT_TEMPLATE = (
    "Beside the worker, a template process holds the whole project: each child is forked from it,"
    " and shares its pages. Its memory is in none of these figures."
)
HEADINGS = [
    ("", "", "seconds", "child MB", "peak", "new", "parent MB"),
    ("task", "outcome", "run", "start -> end", "MB", "modules", "before -> after"),
]


def runs_of(job_ids: Sequence[str]) -> list[Run]:
    """Return the runs of these jobs in the order in which they started."""
    runs = Run.objects.filter(job_id__in=job_ids).select_related("job")
    return sorted(runs, key=lambda run: (run.started_at or run.finished_at, run.id))


def table(runs: Sequence[Run]) -> str:
    """Return a line for each run, in columns as wide as they need to be."""
    lines = [*HEADINGS, *(cells(run) for run in runs)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEADINGS[0]))]
    texts = [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join(text.rstrip() for text in [*texts[:2], rule, *texts[2:]])


def cells(run: Run) -> tuple[str, ...]:
    """Return one line of the table."""
    return (
        called(run),
        f"{run.outcome} ({run.signal})" if run.signal is not None else run.outcome,
        "-" if run.run_seconds is None else f"{run.run_seconds:.2f}",
        f"{mb(run.child_rss_start_bytes)} -> {mb(run.child_rss_end_bytes):>5}",
        mb(run.child_peak_rss_bytes),
        "-" if run.new_modules is None else str(run.new_modules),
        f"{mb(run.parent_rss_before_fork_bytes)} -> {mb(run.parent_rss_after_join_bytes):>5}",
    )


def called(run: Run) -> str:
    """Return the call as one would write it: make_invoice(1001)."""
    arguments = json.loads(run.job.arguments)["args"]
    return f"{name_of(run)}({', '.join(map(str, arguments))})"


def name_of(run: Run) -> str:
    return run.task_path.rpartition(".")[2]


def mb(size: int | None) -> str:
    return "-" if size is None else f"{size / MB:.1f}"


def explanation(runs: Sequence[Run]) -> str:
    """Say in a few sentences what the table shows, with its own figures."""
    paragraphs = [about_memory(runs), ABOUT_TEMPLATE]
    paragraphs += [
        f"{called(run)}: {run.message}" for run in runs if name_of(run) in ENDINGS and run.message
    ]
    paragraphs.append(
        "Whatever a child imported, kept or broke went back to the system when it ended. "
        f"Mails, invoices, thumbnails and the report are in {settings.VAR_DIR}; the rows are there "
        "too, and in the admin, at http://127.0.0.1:8000/admin/ after these two commands:"
    )
    filled = [
        textwrap.fill(text, 96, break_long_words=False, break_on_hyphens=False)
        for text in paragraphs
    ]
    # Not filled: what is to be copied stays on a line of its own.
    commands = "\n".join(f"    {manage(command)}" for command in ("createsuperuser", "runserver"))
    return "\n\n".join([*filled, commands])


def manage(command: str) -> str:
    """Write how this project's manage.py is called from where the reader started it, or `run.py`."""
    script = Path(settings.BASE_DIR, "manage.py")
    here = Path(os.environ.get("SHOP_STARTED_IN") or Path.cwd())
    words = [Path(sys.executable), script]
    shown = [
        str(each.relative_to(here)) if each.is_relative_to(here) else str(each) for each in words
    ]
    return " ".join([*shown, command])


def about_memory(runs: Sequence[Run]) -> str:
    """Compare what the worker held from first to last with what its children took."""
    parent = [
        size
        for run in runs
        for size in (run.parent_rss_before_fork_bytes, run.parent_rss_after_join_bytes)
        if size is not None
    ]
    taken = [
        run.child_peak_rss_bytes - run.child_rss_start_bytes
        for run in runs
        if run.child_peak_rss_bytes is not None and run.child_rss_start_bytes is not None
    ]
    if not parent or not taken:
        return "The memory of these runs is not known."
    return (
        f"The worker held between {mb(min(parent))} and {mb(max(parent))} MB all the time, while its "
        f"{len(runs)} children took {sum(taken) / MB:.0f} MB on top of what they started with, "
        f"up to {max(taken) / MB:.0f} MB each. MB are a million bytes of resident memory (RSS), "
        "which counts pages shared with the parent too; a dash is a figure that was not "
        "read before the child was gone."
    )


def surprises(runs: Sequence[Run], job_ids: Sequence[str]) -> list[str]:
    """Return a line for each run that did not end as it should, and for each job without one."""
    lines = []
    for run in runs:
        ending = ENDINGS.get(name_of(run), "returned")
        if run.outcome != ending:
            lines.append(f"{called(run)} should be {ending}, and is {run.outcome}: {run.message}")
    missing = set(map(str, job_ids)) - {str(run.job_id) for run in runs}
    lines += [f"Job {job_id} was never run." for job_id in sorted(missing)]
    return lines
