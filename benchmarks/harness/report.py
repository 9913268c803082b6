"""The tables, as markdown that also reads well in a terminal, and the document that holds them."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from harness.figures import Cell, Cost, Figures, Spread
from harness.goals import judge, ratio_text
from harness.options import Options

if TYPE_CHECKING:
    from harness.servers import Servers

BEGIN = "<!-- figures: begin (written by benchmarks/run.py, do not edit) -->"
END = "<!-- figures: end -->"

PLACES = {"postgresql": "PostgreSQL", "sqlite": "SQLite", "redis": "Redis"}
TITLES = {
    "dayfly-1": "dayfly, one task per child",
    "dayfly-1000": "dayfly, 1,000 tasks per child",
    "dayfly-template-1": "dayfly, template, one per child",
    "dayfly-template-1000": "dayfly, template, 1,000 per child",
    "bare-fork": "bare fork, the ceiling",
    "db-worker": "db_worker, Django's defaults",
    "db-worker-persistent": "db_worker, open connections",
    "plain": "plain process per task",
    "rq": "RQ",
}
OURS = ("dayfly-1", "dayfly-1000", "dayfly-template-1", "dayfly-template-1000")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table with its columns aligned."""
    widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(headings), line(rule), *(line(row) for row in rows)])


def rate_text(value: float) -> str:
    """Write jobs per second."""
    return f"{value:.0f}"


def columns(figures: Figures) -> list[tuple[str, int]]:
    """Return the databases and concurrencies that were measured."""
    order = list(PLACES)
    found = {(cell.place, cell.concurrency) for cell in figures.rates if cell.place != "redis"}
    if not found:  # only RQ was asked for
        found = {(cell.place, cell.concurrency) for cell in figures.rates}
    return sorted(found, key=lambda column: (order.index(column[0]), column[1]))


def cell_of(name: str, place: str, concurrency: int) -> Cell:
    """Return where a contender's rate is: RQ has its own store, whatever the column."""
    return Cell("redis" if name == "rq" else place, concurrency, name)


def measured(figures: Figures) -> list[str]:
    """Return the contenders with a rate, in the order of the tables."""
    found = {cell.contender for cell in figures.rates}
    return [name for name in TITLES if name in found]


def rates(figures: Figures) -> str:
    """Jobs per second."""
    heads = columns(figures)
    rows = []
    for name in measured(figures):
        spreads = [figures.rate(cell_of(name, *head)) for head in heads]
        rows.append([TITLES[name], *(s.show(rate_text) if s else "-" for s in spreads)])
    titles = [f"{PLACES[place]}, {concurrency}" for place, concurrency in heads]
    return table(["jobs per second", *titles], rows)


def ratios(figures: Figures, ours: str) -> str:
    """How many times as fast dayfly is as each other."""
    heads = columns(figures)
    rows = []
    for name in measured(figures):
        if name in OURS:
            continue
        found = [figures.ratio(Cell(p, c, ours), cell_of(name, p, c)) for p, c in heads]
        rows.append([f"/ {TITLES[name]}", *(s.show(ratio_text) if s else "-" for s in found)])
    titles = [f"{PLACES[place]}, {concurrency}" for place, concurrency in heads]
    return table([TITLES[ours], *titles], rows)


def sizes(figures: Figures) -> str:
    """RSS of the parents: fork costs what the parent weighs, so the ceiling must weigh the same."""
    heads = columns(figures)
    rows = []
    for name in measured(figures):
        found = [figures.rss.get(cell_of(name, *head)) for head in heads]
        rows.append([TITLES[name], *(f"{rss / 1024**2:.1f}" if rss else "-" for rss in found)])
    titles = [f"{PLACES[place]}, {concurrency}" for place, concurrency in heads]
    return table(["RSS of one parent, MB", *titles], rows)


def costs(figures: Figures, heading: str, read: Callable[[Cost], float], digits: int) -> str:
    """What one job costs: these figures move less than rates when the machine has other work."""
    heads = columns(figures)
    rows = []
    for name in measured(figures):
        found = [figures.costs.get(cell_of(name, *head), []) for head in heads]
        spreads = [
            Spread(tuple(read(cost) for cost in costs)) if costs else None for costs in found
        ]
        shown = [s.show(lambda value: f"{value:.{digits}f}") if s else "-" for s in spreads]
        rows.append([TITLES[name], *shown])
    titles = [f"{PLACES[place]}, {concurrency}" for place, concurrency in heads]
    return table([heading, *titles], rows)


def latencies(figures: Figures) -> str:
    """From just before enqueue() to the task's body."""
    rows = [
        [
            f"{TITLES[name]} ({PLACES[place]})",
            *(f"{spread.quantile(share) * 1000:.1f}" for share in (0.5, 0.95, 1)),
            str(len(spread.values)),
        ]
        for (place, name), spread in figures.latencies.items()
    ]
    return table(["start latency, ms", "p50", "p95", "max", "jobs"], rows)


def growths(figures: Figures) -> str:
    """Private memory of the parent."""
    rows = [
        [
            f"{TITLES[name]} ({PLACES[place]})",
            f"{growth.jobs:,}",
            f"{growth.early_bytes / 1024**2:.1f}",
            f"{growth.late_bytes / 1024**2:.1f}",
            f"{growth.megabytes:+.2f}",
        ]
        for (place, name), growth in figures.growths.items()
    ]
    heads = ["RssAnon of the parent, MB", "leaks of 1 MB", "at 10 %", "at 100 %", "growth"]
    return table(heads, rows)


def goals(figures: Figures) -> str:
    """The goals, on PostgreSQL with two tasks at a time."""
    rows = [[goal.text, goal.wanted, goal.found, goal.verdict] for goal in judge(figures)]
    return table(["goal (PostgreSQL, 2 at a time)", "wanted", "found", "verdict"], rows)


def circumstances(options: Options, servers: Servers, figures: Figures) -> str:
    """Say when and on what: a figure without them says nothing."""
    stores = [f"SQLite {sqlite_version()}"]
    if servers.postgresql_url:
        stores.insert(0, f"PostgreSQL {servers.postgresql_version}")
    if servers.redis_url:
        stores.append(f"Redis {servers.redis_version}")
    packages = ", ".join(f"{name} {version(name)}" for name in ("dayfly", "django-tasks-db", "rq"))
    return (
        f"Taken on {datetime.now(UTC):%Y-%m-%d} with Python {platform.python_version()}, "
        f"Django {version('django')}, {packages}, {', '.join(stores)}, "
        f"Linux {platform.release()}, {len(os.sched_getaffinity(0))} cores, "
        f"load average of the machine before the run {figures.load_before:.1f}; "
        f"{options.jobs:,} jobs a round, rounds: {options.rounds}"
        f"{', quick' if options.quick else ''}: median (lowest-highest)."
    )


def sqlite_version() -> str:
    """Return the version of the library in use."""
    import sqlite3

    return sqlite3.sqlite_version


def render(options: Options, servers: Servers, figures: Figures) -> str:
    """Return everything that was found, as markdown."""
    parts = [circumstances(options, servers, figures)]
    parts += [f"**Left out:** {sentence}" for sentence in figures.missing]
    parts += [f"**Failed:** {sentence}" for sentence in figures.failures]
    if figures.rates:
        parts.append(rates(figures))
        parts += [ratios(figures, name) for name in measured(figures) if name in OURS]
        parts.append(costs(figures, "CPU per job, ms", lambda cost: cost.cpu_seconds * 1000, 1))
        parts.append(costs(figures, "page faults per job", lambda cost: cost.minor_faults, 0))
        parts.append(sizes(figures))
    if figures.latencies:
        parts.append(latencies(figures))
    if figures.growths:
        parts.append(growths(figures))
    parts.append(goals(figures))
    return "\n\n".join(parts)


def write(document: Path, figures: str, mark: str = BEGIN) -> None:
    """Put the figures between the markers of the document; the prose around them stays."""
    before, after = prose(document, mark)
    document.parent.mkdir(parents=True, exist_ok=True)
    document.write_text(f"{before}{mark}\n\n{figures}\n\n{END}{after}")


def prose(document: Path, mark: str = BEGIN) -> tuple[str, str]:
    """Return what stands before and after the figures; a document that is not there is empty."""
    text = document.read_text() if document.is_file() else f"# Benchmarks\n\n{mark}\n{END}\n"
    before, begin, rest = text.partition(mark)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has lost its markers: put back the lines {mark} and {END}")
    return before, after
