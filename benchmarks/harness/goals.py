"""What dayfly wants to reach, and whether it did. A goal that is missed is said, not hidden."""

from __future__ import annotations

from dataclasses import dataclass

from harness.figures import Cell, Figures

#: Ratios are judged where both cores have work.
PLACE, CONCURRENCY = "postgresql", 2

#: Contender, its rival, the least ratio, in words.
ONE_PER_CHILD = (
    ("bare-fork", 0.7, "one task per child, of the bare-fork ceiling"),
    ("db-worker", 1.0, "one task per child, against db_worker as it comes"),
    ("plain", 5.0, "one task per child, against the plain design"),
    ("rq", 2.5, "one task per child, against RQ"),
)
MANY_PER_CHILD = (
    (
        "db-worker-persistent",
        3.0,
        "1,000 tasks per child, against db_worker with open connections",
    ),
)
RATIOS = tuple(
    (f"dayfly-{launcher}{calls}", rival, least, text + words)
    for launcher, words in (("", ""), ("template-", ", from a template"))
    for calls, goals in (("1", ONE_PER_CHILD), ("1000", MANY_PER_CHILD))
    for rival, least, text in goals
)
LATENCY_SECONDS = 0.010
GROWTH_MEGABYTES = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal and what was found."""

    text: str
    wanted: str
    found: str
    #: None when it was not measured.
    met: bool | None

    @property
    def verdict(self) -> str:
        """Say it in a word."""
        return "not measured" if self.met is None else ("met" if self.met else "missed")


def ratio_text(value: float) -> str:
    """Write a ratio."""
    return f"{value:.2f}"


def is_reached(ratio: float, least: float) -> bool:
    """As fast as a rival is not yet faster."""
    return ratio > least if least == 1 else ratio >= least


def judge_ratio(figures: Figures, name: str, rival: str, least: float, text: str) -> Goal:
    """Judge the median of the rounds' ratios."""
    theirs = Cell("redis" if rival == "rq" else PLACE, CONCURRENCY, rival)
    found = figures.ratio(Cell(PLACE, CONCURRENCY, name), theirs)
    return Goal(
        text=text,
        wanted=f"more than {least:g} x" if least == 1 else f"at least {least:g} x",
        found=found.show(ratio_text) if found else "-",
        met=None if found is None else is_reached(found.median, least),
    )


def judge(figures: Figures) -> list[Goal]:
    """Judge all goals."""
    goals = [judge_ratio(figures, *ratio) for ratio in RATIOS]
    goals += [judge_latency(figures), judge_growth(figures)]
    return goals


def judge_latency(figures: Figures) -> Goal:
    """Judge the p50 on PostgreSQL."""
    latency = figures.latencies.get((PLACE, "dayfly-1"))
    p50 = None if latency is None else latency.quantile(0.5)
    return Goal(
        text="start latency on an idle worker, p50",
        wanted=f"at most {LATENCY_SECONDS * 1000:g} ms",
        found="-" if p50 is None else f"{p50 * 1000:.1f} ms",
        met=None if p50 is None else p50 <= LATENCY_SECONDS,
    )


def judge_growth(figures: Figures) -> Goal:
    """Judge the worst of the databases: a leak is a leak wherever it is."""
    found = [growth for (_, name), growth in figures.growths.items() if name == "dayfly-1"]
    worst = max(found, key=lambda growth: growth.megabytes, default=None)
    return Goal(
        text="growth of the parent while its tasks leak, worst database",
        wanted=f"below {GROWTH_MEGABYTES:g} MB",
        found="-" if worst is None else f"{worst.megabytes:.2f} MB over {worst.jobs:,} runs",
        met=None if worst is None else worst.megabytes < GROWTH_MEGABYTES,
    )
