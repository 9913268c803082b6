"""What the executor wants to reach, and whether it did."""

from __future__ import annotations

from bench_executor.contenders import CONCURRENCY, CONTENDERS, LARGE, SMALL
from harness.executor.rounds import Found
from harness.figures import Cell
from harness.goals import Goal, is_reached, ratio_text

#: The launcher that is judged.
OURS = "template"
#: Peers with one task per child, and the least ratio.
PEERS = {"ppe-spawn": 5.0, "ppe-forkserver": 5.0, "mp-pool": 1.0, "pebble": 1.0}
WORDS = {SMALL: "small parent", LARGE: "300 MB"}
#: Against all that import the application in each child.
IMPORT_RATIO = 20.0
IDLE_BYTES = 2_000_000
IDLE = ("fork", "copy", "template")


def judge(found: Found) -> list[Goal]:
    """Judge all goals."""
    goals = [
        judge_ratio(found, parent, peer, least)
        for parent in (SMALL, LARGE)
        for peer, least in PEERS.items()
    ]
    return [*goals, judge_import(found), judge_idle(found)]


def judge_ratio(found: Found, parent: str, peer: str, least: float) -> Goal:
    """Judge the median of the rounds' ratios."""
    ratio = found.ratio(Cell(parent, CONCURRENCY, OURS), Cell(parent, CONCURRENCY, peer))
    return Goal(
        text=f"{OURS}, one call per child, against {CONTENDERS[peer].title} ({WORDS[parent]})",
        wanted=f"more than {least:g} x" if least == 1 else f"at least {least:g} x",
        found=ratio.show(ratio_text) if ratio else "-",
        met=None if ratio is None else is_reached(ratio.median, least),
    )


def judge_import(found: Found) -> Goal:
    """Judge against the fastest of those whose children import the application."""
    ours = Cell(LARGE, CONCURRENCY, OURS)
    ratios = [
        ratio
        for name, one in CONTENDERS.items()
        if one.imports_itself and (ratio := found.ratio(ours, Cell(LARGE, CONCURRENCY, name)))
    ]
    worst = min(ratios, key=lambda ratio: ratio.median, default=None)
    return Goal(
        text=f"{OURS}, against the fastest that imports the 300 MB in each child",
        wanted=f"at least {IMPORT_RATIO:g} x",
        found=worst.show(ratio_text) if worst else "-",
        met=None if worst is None else worst.median >= IMPORT_RATIO,
    )


def judge_idle(found: Found) -> Goal:
    """Judge the largest child on standby of all that fork."""
    seen = {
        cell: one["standby_uss"]
        for cell, one in found.memory.items()
        if cell.contender in IDLE and one["standby_uss"] is not None
    }
    worst = max(seen, key=lambda cell: seen[cell], default=None)
    return Goal(
        text="private memory of a child on standby, largest of fork, copy and template",
        wanted=f"below {IDLE_BYTES / 1e6:g} MB",
        found="-"
        if worst is None
        else f"{seen[worst] / 1e6:.2f} MB ({worst.contender}, {WORDS[worst.place]})",
        met=None if worst is None else seen[worst] < IDLE_BYTES,
    )
