"""The ceiling: see bench_project/management/commands/bare_fork.py."""

from __future__ import annotations

import json
from importlib.util import find_spec

from harness.contenders.base import DjangoContender
from harness.process import BenchError, Process, manage
from harness.stamps import Stamps


class BareFork(DjangoContender):
    """Fork, _exit and wait4 with dayfly's settings and modules loaded; no queue."""

    system = "dayfly"
    jobs = 0

    def missing(self) -> str | None:
        """Without the worker there is no size to be of."""
        if find_spec("dayfly.management.commands.runworker") is None:
            return (
                "This checkout has no `manage.py runworker`: the ceiling of its size is left out."
            )
        return None

    def prepare(self, jobs: int, task: str = "noop") -> None:
        """Remember how many."""
        self.jobs = jobs
        self.stamps = Stamps(self.stamps.path)

    def start(self, concurrency: int, *, drain: bool = True) -> list[Process]:
        """Start the one parent."""
        arguments = ("--jobs", str(self.jobs), "--concurrency", str(concurrency))
        self.process = self.run(manage("bare_fork", *arguments))
        return [self.process]

    def verify(self, jobs: int) -> int | None:
        """Return the size that it printed; the stamps say that each child came and went."""
        rss: int = json.loads(self.process.tail())["rss_bytes"]
        return rss

    def enqueue_slowly(self, count: int) -> list[int]:
        """There is no queue."""
        raise BenchError("bare fork has no queue, and so no latency")
