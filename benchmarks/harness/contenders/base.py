"""What a contender is to the harness, and what all that live in the Django project share."""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.process import BenchError, Process, manage, output_of
from harness.servers import Servers
from harness.stamps import Stamps

#: So that every process has a log of its own.
COUNTER = itertools.count()


class Contender(ABC):
    """A task runner at one place (a database, or Redis)."""

    def __init__(self, place: str, servers: Servers, workspace: Path) -> None:
        self.place = place
        self.servers = servers
        self.workspace = workspace
        self.stamps = Stamps(workspace / "stamps")

    def missing(self) -> str | None:
        """Return one sentence if it cannot be measured here, else None."""
        return None

    @abstractmethod
    def prepare(self, jobs: int, task: str = "noop") -> None:
        """Empty the queue and the stamps, and enqueue *jobs* jobs, numbered from 0."""

    @abstractmethod
    def start(self, concurrency: int, *, drain: bool = True) -> list[Process]:
        """Start workers that run so many jobs at a time; with *drain* they end with the queue."""

    @abstractmethod
    def verify(self, jobs: int) -> int | None:
        """
        Raise unless the system itself says that all jobs succeeded.

        Returns:
            What it recorded of its parent's RSS in bytes, if it records that.
        """

    @abstractmethod
    def enqueue_slowly(self, count: int) -> list[int]:
        """Enqueue 1..count at random moments (pace.py); return the moments just before each."""

    def stop(self, processes: Sequence[Process]) -> None:
        """Stop workers, and leave nothing behind."""
        for process in processes:
            process.stop()

    def tidy(self) -> None:  # noqa: B027 - most have nothing to take away
        """Take away what it left in a store that is not ours alone; called once, at the end."""

    def environment(self) -> dict[str, str]:
        """Return what its processes find in their environment."""
        return {"DAYFLY_BENCH_STAMPS": str(self.stamps.path)}

    def run(self, command: Sequence[str]) -> Process:
        """Start one process."""
        name = Path(command[1]).name if command[1].endswith("rq") else command[2]
        log = self.workspace / f"{next(COUNTER)}-{name}.log"
        return Process(command, self.environment(), log, name)


class DjangoContender(Contender):
    """A contender with its rows in a database."""

    #: The name in DAYFLY_BENCH_SYSTEM.
    system: str

    def environment(self) -> dict[str, str]:
        """Add its database and its settings."""
        return {
            **super().environment(),
            "DAYFLY_BENCH_SYSTEM": self.system,
            "DAYFLY_BENCH_DATABASE": self.servers.database(self.place, self.system),
            "DAYFLY_BENCH_CONN_MAX_AGE": "0",
        }

    def manage(self, *arguments: str) -> str:
        """Run a short management command."""
        return output_of(manage(*arguments), self.environment(), arguments[0])

    def prepare(self, jobs: int, task: str = "noop") -> None:
        """Fill the queue."""
        self.manage("bench_enqueue", "--count", str(jobs), "--task", task)
        self.stamps = Stamps(self.stamps.path)

    def verify(self, jobs: int) -> int | None:
        """Read the rows."""
        found: dict[str, Any] = json.loads(self.manage("bench_verify"))
        if found["statuses"] != ({"done": jobs} if jobs else {}):
            raise BenchError(f"not every job succeeded: {found['statuses']}, of {jobs}")
        rss: int | None = found["worker_rss_bytes"]
        return rss

    def enqueue_slowly(self, count: int) -> list[int]:
        """Enqueue from one process with one connection."""
        moments: list[int] = json.loads(self.manage("bench_latency", "--count", str(count)))
        return moments
