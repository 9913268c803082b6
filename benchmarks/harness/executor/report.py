"""The tables of the executor's benchmark."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from bench_executor.contenders import CONCURRENCY, CONTENDERS, LARGE, SMALL
from harness.executor.goals import judge
from harness.executor.options import Options
from harness.executor.rounds import Found
from harness.figures import Cell
from harness.goals import ratio_text
from harness.report import table

BEGIN = "<!-- figures: begin (written by benchmarks/executor.py, do not edit) -->"
HEADS = {SMALL: "small parent", LARGE: "300 MB"}
#: The same launcher with huge pages, and without.
PAIRS = (("template", "template-4k"), ("copy-huge", "copy"), ("fork-huge", "fork"))
COMPARED = ("template", "copy", "fork")


def render(options: Options, found: Found) -> str:
    """Return everything that was found, as markdown."""
    parts = [circumstances(options, found)]
    parts += [f"**Left out:** {sentence}" for sentence in found.missing]
    parts += [f"**Failed:** {sentence}" for sentence in found.failures]
    parts.append(rates(options, found))
    parts += [ratios(options, found, name) for name in COMPARED if name in options.only]
    parts.append(huge_pages(options, found))
    parts += [memory(found, parent) for parent in options.parents]
    parts += [looks(found, parent) for parent in options.parents]
    parts.append(goals(found))
    return "\n\n".join(part for part in parts if part)


def circumstances(options: Options, found: Found) -> str:
    """Say when, where and how much."""
    packages = ", ".join(
        f"{name} {installed}" for name in ("dayfly", "pebble", "loky") if (installed := _of(name))
    )
    stood = (
        ""
        if not found.standstills
        else (
            f" The machine stood still for seconds {found.standstills} times; what was being counted was counted anew."
        )
    )
    return (
        f"Taken on {datetime.now(UTC):%Y-%m-%d} with Python {platform.python_version()}, {packages}, "
        f"Linux {platform.release()}, {len(os.sched_getaffinity(0))} cores, "
        f"load average of the machine before the run {found.load_before:.1f}; "
        f"{CONCURRENCY} calls at a time, rounds: {found.rounds}, each counted for "
        f"{options.seconds:g} s or longer: median (lowest-highest). "
        f"What imports 300 MB in each child is measured in the first round only.{stood}"
    )


def rates(options: Options, found: Found) -> str:
    """Calls per second."""
    rows = []
    for name, contender in CONTENDERS.items():
        spreads = [found.rate(Cell(parent, CONCURRENCY, name)) for parent in options.parents]
        if any(spreads):
            rows.append([contender.title, *(s.show(rate_text) if s else "-" for s in spreads)])
    return table(["calls per second", *_heads(options)], rows)


def ratios(options: Options, found: Found, ours: str) -> str:
    """How many times as fast one launcher is as each peer."""
    rows = []
    for name, contender in CONTENDERS.items():
        if contender.is_ours and not contender.imports_itself:
            continue
        spreads = [
            found.ratio(Cell(parent, CONCURRENCY, ours), Cell(parent, CONCURRENCY, name))
            for parent in options.parents
        ]
        if any(spreads):
            rows.append(
                [f"/ {contender.title}", *(s.show(ratio_text) if s else "-" for s in spreads)]
            )
    return table([CONTENDERS[ours].title, *_heads(options)], rows) if rows else ""


def huge_pages(options: Options, found: Found) -> str:
    """What collapse_heap gains."""
    rows = []
    for huge, without in PAIRS:
        spreads = [
            found.ratio(Cell(parent, CONCURRENCY, huge), Cell(parent, CONCURRENCY, without))
            for parent in options.parents
        ]
        if any(spreads):
            title = CONTENDERS[without].title.removesuffix(", no huge pages")
            rows.append([title, *(s.show(ratio_text) if s else "-" for s in spreads)])
    return table(["with huge pages / without", *_heads(options)], rows) if rows else ""


def memory(found: Found, parent: str) -> str:
    """The whole tree, and its children."""
    rows = []
    for name, contender in CONTENDERS.items():
        one = found.memory.get(Cell(parent, CONCURRENCY, name))
        if one is not None:
            names = ("tree_pss", "parent_pss", "standby_uss", "held_uss")
            rows.append(
                [contender.title, str(one["processes"]), *(megabytes(one[key]) for key in names)]
            )
    heads = ["processes", "PSS of all", "PSS of the parent", "USS on standby", "USS in a call"]
    return table([f"MB, {HEADS[parent]}", *heads], rows) if rows else ""


def looks(found: Found, parent: str) -> str:
    """What a child comes to hold alone."""
    rows = []
    for name, contender in CONTENDERS.items():
        one = found.memory.get(Cell(parent, CONCURRENCY, name))
        # A child that has served others looks at what they left, too.
        if one is not None and contender.calls_per_child == 1:
            keys = ("at_start", "collected", "worked")
            rows.append([contender.title, *(megabytes(one["looks"][key]) for key in keys)])
    heads = ["as its call begins", "after gc.collect()", "after ordinary work"]
    return table([f"USS of a child, MB, {HEADS[parent]}", *heads], rows) if rows else ""


def goals(found: Found) -> str:
    """Met or missed."""
    rows = [[goal.text, goal.wanted, goal.found, goal.verdict] for goal in judge(found)]
    return table(["goal", "wanted", "found", "verdict"], rows)


def rate_text(value: float) -> str:
    """Write calls per second: the slow ones need a digit more."""
    return f"{value:,.0f}" if value >= 20 else f"{value:.2f}"


def megabytes(value: float | None) -> str:
    """Write bytes in MB of 1,000,000."""
    return "-" if value is None else f"{value / 1e6:,.1f}"


def _heads(options: Options) -> list[str]:
    return [HEADS[parent] for parent in options.parents]


def _of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
