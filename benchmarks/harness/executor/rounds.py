"""Interleaved rounds, A B C A B C: each measurement in a host of its own, which starts anew."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dayfly
from bench_executor.contenders import CONCURRENCY, CONTENDERS, LARGE
from harness.executor.options import Options
from harness.figures import Cell, Figures
from harness.process import BenchError, Process, wait_for_all

if TYPE_CHECKING:
    from harness.progress import Progress

#: How long a host may take. The slowest loads 300 MB for each of two dozen children.
HOST_SECONDS = 150.0
SOURCES = Path(dayfly.__file__).resolve().parent.parent

COUNTER = itertools.count()


@dataclass(slots=True)
class Found(Figures):
    """Rates, and what the first round found of memory."""

    #: What bench_executor.session.tree and looks return.
    memory: dict[Cell, dict[str, Any]] = field(default_factory=dict)
    #: How often the whole machine stood still, and a rate was counted anew.
    standstills: int = 0
    #: Rounds that were measured.
    rounds: int = 0
    #: Seconds that a contender took in all.
    took: dict[Cell, float] = field(default_factory=dict)


def cells(options: Options, found: Found) -> list[Cell]:
    """Return what a round measures; say what is left out."""
    planned = []
    for parent in options.parents:
        for name in options.only:
            contender = CONTENDERS[name]
            if parent not in contender.parents:
                continue
            if contender.needs and importlib.util.find_spec(contender.needs) is None:
                sentence = f"{contender.needs} is not installed: {name} is left out."
                if sentence not in found.missing:
                    found.missing.append(sentence)
                continue
            planned.append(Cell(parent, CONCURRENCY, name))
    return planned


def measure_one(
    cell: Cell, *, seconds: float, with_memory: bool, workspace: Path
) -> dict[str, Any]:
    """
    Have one host measure; return what it found.

    Raises:
        BenchError: it failed, or took too long.
    """
    number = next(COUNTER)
    result = workspace / f"{number}.json"
    order = {
        "contender": cell.contender,
        "parent": cell.place,
        "seconds": seconds,
        "with_memory": with_memory,
        "workspace": str(workspace),
        "result": str(result),
    }
    process = Process(
        [sys.executable, "-m", "bench_executor.host", json.dumps(order)],
        {"PYTHONPATH": str(SOURCES)},
        workspace / f"{number}.log",
        f"the host of {cell.contender} ({cell.place})",
    )
    try:
        wait_for_all([process], HOST_SECONDS)
    finally:
        process.stop()
    return json.loads(result.read_text())


def measure(options: Options, found: Found, workspace: Path, progress: Progress) -> None:
    """Measure round after round, while there is time. What fails is said, and does not stop the others."""
    planned = cells(options, found)
    again = [cell for cell in planned if not is_slow(cell)]
    progress.bar.total = len(planned) + (options.rounds - 1) * len(again)
    for sentence in found.missing:
        progress.warn(sentence)
    ends = time.monotonic() + options.minutes * 60
    for number in range(1, options.rounds + 1):
        expected = sum(found.took.get(cell, 0.0) / max(number - 1, 1) for cell in again)
        if number > 1 and time.monotonic() + expected > ends:
            progress.warn(f"only {number - 1} of {options.rounds} rounds: the time is up")
            break
        for cell in planned if number == 1 else again:
            progress.say(f"round {number} of {options.rounds}: {name_of(cell)}")
            measure_round(cell, number, options, found, workspace, progress)
            progress.step()
        found.rounds = number
    progress.close()


def is_slow(cell: Cell) -> bool:
    """Tell whether one round must do: two orders of magnitude need no range."""
    return cell.place == LARGE and CONTENDERS[cell.contender].imports_itself


def measure_round(
    cell: Cell, number: int, options: Options, found: Found, workspace: Path, progress: Progress
) -> None:
    """Measure one contender once."""
    began = time.monotonic()
    try:
        one = measure_one(
            cell,
            seconds=options.seconds,
            with_memory=cell not in found.memory,
            workspace=workspace,
        )
    except BenchError as error:
        found.failures.append(f"Round {number} of {name_of(cell)} failed: {error}.")
        progress.warn(found.failures[-1])
        return
    found.add_rate(cell, number, one.pop("rate"), None)
    found.standstills += one.pop("standstills")
    if one:
        found.memory[cell] = one
    found.took[cell] = found.took.get(cell, 0.0) + time.monotonic() - began


def name_of(cell: Cell) -> str:
    """Name what is measured."""
    return f"{cell.contender}, {cell.place} parent"
