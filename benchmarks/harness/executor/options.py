"""What can be asked of the executor's benchmark on the command line. Standard library only."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from bench_executor.contenders import CONTENDERS, LARGE, SMALL
from harness.options import positive

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "benchmarks-executor.md"
PARENTS = (SMALL, LARGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to measure, and how much of it."""

    only: tuple[str, ...]
    parents: tuple[str, ...]
    rounds: int
    #: How long each round counts calls, at least.
    seconds: float
    #: No round is begun that would end later.
    minutes: float
    output: Path | None
    #: Then it is written whatever was left out.
    output_is_asked_for: bool


def parser() -> argparse.ArgumentParser:
    """Build the parser."""
    contenders = "\n".join(f"  {name:16}{one.title}" for name, one in CONTENDERS.items())
    result = argparse.ArgumentParser(
        prog="python3 benchmarks/executor.py",
        description="Measure the launchers of dayfly's executor and other pools in one run, in\n"
        "interleaved rounds. A full run rewrites the tables in docs/benchmarks-executor.md.",
        epilog=f"contenders:\n{contenders}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("--rounds", type=positive, metavar="N", help="rounds of each contender (default 3)")
    add("--seconds", type=float, default=1.0, help="how long a round counts (default 1)")
    add("--minutes", type=float, default=5.5, help="begin no round that would end later (5.5)")
    add("--quick", action="store_true", help="one round; writes nothing")
    add("--only", nargs="+", choices=CONTENDERS, default=[], metavar="NAME", help="contenders")
    add("--parents", nargs="+", choices=PARENTS, default=PARENTS, help="default: both")
    add("--output", type=Path, metavar="FILE", help="write the tables there, also of a part run")
    add("--no-output", action="store_true", help="print only")
    return result


def parse(arguments: list[str]) -> Options:
    """Turn the command line into Options."""
    given = parser().parse_args(arguments)
    whole = not given.quick and not given.only and set(given.parents) == set(PARENTS)
    output = given.output or (DOCUMENT if whole else None)
    return Options(
        only=tuple(name for name in CONTENDERS if not given.only or name in given.only),
        parents=tuple(parent for parent in PARENTS if parent in given.parents),
        rounds=given.rounds or (1 if given.quick else 3),
        seconds=given.seconds,
        minutes=given.minutes,
        output=None if given.no_output else output,
        output_is_asked_for=given.output is not None,
    )
