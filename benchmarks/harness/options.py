"""What can be asked of the benchmark on the command line. Standard library only."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"

CONTENDERS = {
    "dayfly-1": "dayfly, one task per child",
    "dayfly-1000": "dayfly, 1,000 tasks per child",
    "dayfly-template-1": "the same from a template, one task per child",
    "dayfly-template-1000": "the same from a template, 1,000 tasks per child",
    "bare-fork": "fork, _exit and wait4 alone, in a process of the parent's size (the ceiling)",
    "db-worker": "db_worker of django-tasks-db with Django's default settings",
    "db-worker-persistent": "db_worker with connections that stay open (CONN_MAX_AGE=None)",
    "plain": "a multiprocessing.Process per task, the connection closed before each fork",
    "rq": "rq worker, which forks per job, on Redis",
}
PARTS = ("throughput", "latency", "growth")
DATABASES = ("postgresql", "sqlite")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to measure, and how much of it."""

    only: tuple[str, ...]
    parts: tuple[str, ...]
    databases: tuple[str, ...]
    concurrency: tuple[int, ...]
    rounds: int
    jobs: int
    latency_jobs: int
    leaking_jobs: int
    #: For the worker without isolation, whose parent keeps every leak.
    leaking_jobs_in_process: int
    quick: bool
    output: Path | None
    #: Then it is written whatever was left out.
    output_is_asked_for: bool


def positive(text: str) -> int:
    """Read a whole number above zero."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


def parser() -> argparse.ArgumentParser:
    """Build the parser."""
    contenders = "\n".join(f"  {name:22}{about}" for name, about in CONTENDERS.items())
    result = argparse.ArgumentParser(
        prog="python3 benchmarks/run.py",
        description="Measure dayfly and its rivals in one run, in interleaved rounds, and print\n"
        "medians, ranges and ratios. A full run rewrites the tables in docs/benchmarks.md.",
        epilog=f"contenders:\n{contenders}\n\n"
        "environment:\n"
        "  DAYFLY_BENCH_POSTGRESQL_URL  default postgresql://root@127.0.0.1/dayfly_bench; databases\n"
        "                               whose names begin like this are made, and dropped at the end\n"
        "  DAYFLY_BENCH_REDIS_URL       default redis://127.0.0.1:6379/0; a queue of its own is used\n\n"
        "A server that does not answer is said, and its rows are left out.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("--quick", action="store_true", help="300 jobs, 3 rounds, 30 latencies, 1,000 leaks")
    add("--rounds", type=positive, metavar="N", help="rounds of each contender (default 5)")
    add("--jobs", type=positive, metavar="N", help="jobs of each round (default 1000)")
    add("--only", nargs="+", choices=CONTENDERS, default=[], metavar="NAME", help="contenders")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    add("--databases", nargs="+", choices=DATABASES, default=DATABASES, help="default: both")
    add("--concurrency", nargs="+", type=positive, default=[1, 2], metavar="N", help="default: 1 2")
    add("--output", type=Path, metavar="FILE", help="write the tables there, also of a part run")
    add("--no-output", action="store_true", help="print only")
    return result


def parse(arguments: list[str]) -> Options:
    """Turn the command line into Options."""
    given = parser().parse_args(arguments)
    whole = (
        not given.quick
        and not given.only
        and set(given.parts) == set(PARTS)
        and set(given.databases) == set(DATABASES)
        and {1, 2} <= set(given.concurrency)
    )
    output = given.output or (DOCUMENT if whole else None)
    return Options(
        only=tuple(given.only) or tuple(CONTENDERS),
        parts=tuple(given.parts),
        databases=tuple(given.databases),
        concurrency=tuple(sorted(set(given.concurrency))),
        rounds=given.rounds or (3 if given.quick else 5),
        jobs=given.jobs or (300 if given.quick else 1000),
        latency_jobs=30 if given.quick else 100,
        leaking_jobs=1000 if given.quick else 10_000,
        leaking_jobs_in_process=100 if given.quick else 300,
        quick=given.quick,
        output=None if given.no_output else output,
        output_is_asked_for=given.output is not None,
    )
