"""Jobs per second: interleaved rounds, A B C A B C, so that a noisy minute hits all alike."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from harness.contenders import Contender
from harness.figures import Cell, Cost, Figures
from harness.options import Options
from harness.process import BenchError, wait_for_all
from harness.progress import Progress

#: A contender that is slower than this many jobs a second is broken, not slow.
SLOWEST_RATE = 5


def cells(options: Options, contenders: dict[tuple[str, str], Contender]) -> list[Cell]:
    """Return what one round measures, in order."""
    places = list(dict.fromkeys(place for place, _ in contenders))
    return [
        Cell(place, concurrency, name)
        for concurrency in options.concurrency
        for place in places
        for name in options.only
        if (place, name) in contenders
    ]


def run_to_the_end(contender: Contender, concurrency: int, jobs: int) -> tuple[Cost, int]:
    """Let it drain its queue; return what that cost and the largest RSS seen of its parent."""
    contender.prepare(jobs)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    processes = contender.start(concurrency)
    try:
        rss = wait_for_all(processes, 30 + jobs / SLOWEST_RATE)
    finally:
        contender.stop(processes)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return Cost(user + system, after.ru_minflt - before.ru_minflt), rss


def measure_one(contender: Contender, cell: Cell, number: int, jobs: int, figures: Figures) -> None:
    """Run one round of one contender."""
    if cell not in figures.idle_costs:
        figures.idle_costs[cell], _ = run_to_the_end(contender, cell.concurrency, 0)
    cost, seen = run_to_the_end(contender, cell.concurrency, jobs)
    rate = contender.stamps.rate(jobs)
    recorded = contender.verify(jobs)
    figures.add_rate(cell, number, rate, recorded or seen)
    figures.costs.setdefault(cell, []).append(cost.per_job(figures.idle_costs[cell], jobs))


def steps(options: Options, planned: list[Cell]) -> Iterator[tuple[int, Cell]]:
    """Yield round after round."""
    for round_number in range(1, options.rounds + 1):
        for cell in planned:
            yield round_number, cell


def measure(
    options: Options,
    contenders: dict[tuple[str, str], Contender],
    figures: Figures,
    progress: Progress,
) -> None:
    """Measure all rounds. A round that fails is said, and does not stop the others."""
    for number, cell in steps(options, cells(options, contenders)):
        what = f"{cell.contender} on {cell.place}, {cell.concurrency} at a time"
        progress.say(f"round {number} of {options.rounds}: {what}")
        try:
            contender = contenders[cell.place, cell.contender]
            measure_one(contender, cell, number, options.jobs, figures)
        except BenchError as error:
            figures.failures.append(f"Round {number} of {what} failed: {error}.")
            progress.warn(figures.failures[-1])
        progress.step()
