"""What was measured, and what follows from it by arithmetic alone."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Cell:
    """What one rate belongs to."""

    place: str
    concurrency: int
    contender: str


@dataclass(frozen=True, slots=True)
class Spread:
    """Figures of several rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure that is told."""
        return statistics.median(self.values)

    def show(self, form: Callable[[float], str]) -> str:
        """Return the median and, of more than one figure, the range."""
        if len(self.values) == 1:
            return form(self.median)
        return f"{form(self.median)} ({form(min(self.values))}-{form(max(self.values))})"

    def quantile(self, share: float) -> float:
        """Return the value that this share of the figures does not exceed (nearest rank)."""
        ranked = sorted(self.values)
        return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


@dataclass(frozen=True, slots=True)
class Growth:
    """The private memory of a parent, early and late, while its tasks leaked."""

    jobs: int
    early_bytes: int
    late_bytes: int

    @property
    def megabytes(self) -> float:
        """How much it grew."""
        return (self.late_bytes - self.early_bytes) / 1024 / 1024


@dataclass(frozen=True, slots=True)
class Cost:
    """What a contender's processes used, its children with them; a server's part is not in it."""

    cpu_seconds: float
    minor_faults: float

    def per_job(self, idle: Cost, jobs: int) -> Cost:
        """Return the share of one job, without what the contender costs when there is none."""
        return Cost(
            max(0.0, self.cpu_seconds - idle.cpu_seconds) / jobs,
            max(0.0, self.minor_faults - idle.minor_faults) / jobs,
        )


@dataclass(slots=True)
class Figures:
    """All that a run of the benchmark found."""

    #: Of the last minute before the run: figures taken beside other work are worth less.
    load_before: float = field(default_factory=lambda: os.getloadavg()[0])
    #: Jobs per second by round.
    rates: dict[Cell, dict[int, float]] = field(default_factory=dict)
    #: The largest RSS in bytes of the parent, seen in /proc or said by the parent itself.
    rss: dict[Cell, int] = field(default_factory=dict)
    #: Per job, one for each round.
    costs: dict[Cell, list[Cost]] = field(default_factory=dict)
    #: Of starting and stopping with an empty queue.
    idle_costs: dict[Cell, Cost] = field(default_factory=dict)
    #: Seconds from just before enqueue() to the body of the job, by place and contender.
    latencies: dict[tuple[str, str], Spread] = field(default_factory=dict)
    growths: dict[tuple[str, str], Growth] = field(default_factory=dict)
    #: One sentence each: what was left out, what went wrong.
    missing: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add_rate(self, cell: Cell, round_number: int, rate: float, rss: int | None) -> None:
        """Keep one rate."""
        self.rates.setdefault(cell, {})[round_number] = rate
        if rss:
            self.rss[cell] = max(rss, self.rss.get(cell, 0))

    def rate(self, cell: Cell) -> Spread | None:
        """Return the rates of all rounds."""
        by_round = self.rates.get(cell)
        return Spread(tuple(by_round.values())) if by_round else None

    def ratio(self, cell: Cell, other: Cell) -> Spread | None:
        """Divide round by round, so that what disturbs a round disturbs both sides."""
        ours, theirs = self.rates.get(cell, {}), self.rates.get(other, {})
        shared = sorted(ours.keys() & theirs.keys())
        return Spread(tuple(ours[n] / theirs[n] for n in shared)) if shared else None
