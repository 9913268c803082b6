"""
The stamps: the clock that is the same for every contender.

Each job appends its number and the monotonic time to one file. The rate is taken
from the stamps alone, so that neither the start of an interpreter nor its end counts,
nor when a system writes down that a job is done.
"""

from __future__ import annotations

from pathlib import Path

from bench_project.work import STAMP
from harness.process import BenchError

#: This share of the jobs, the first ones, only warm up: several workers do not start at once.
WARM_UP = 0.2


class Stamps:
    """One file of stamps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(b"")

    def count(self) -> int:
        """Return how many jobs have run, for the price of one stat(2)."""
        return self.path.stat().st_size // STAMP.size

    def read(self) -> dict[int, int]:
        """Return the moment of each job; raise if one ran twice."""
        moments: dict[int, int] = {}
        for number, moment in STAMP.iter_unpack(self.path.read_bytes()):
            if number in moments:
                raise BenchError(f"job {number} ran twice")
            moments[number] = moment
        return moments

    def rate(self, jobs: int) -> float:
        """Return jobs per second after the warm-up; raise unless each of the jobs ran once."""
        moments = sorted(self.read().values())
        if len(moments) != jobs:
            raise BenchError(f"{len(moments)} of {jobs} jobs ran")
        first = int(jobs * WARM_UP)
        seconds = (moments[-1] - moments[first]) / 1e9
        return (jobs - 1 - first) / seconds
