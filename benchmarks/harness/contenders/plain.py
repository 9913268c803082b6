"""The plain design: see bench_project/management/commands/plain_worker.py."""

from __future__ import annotations

from harness.contenders.base import DjangoContender
from harness.process import Process, manage


class Plain(DjangoContender):
    """A parent that claims, forks, joins and saves, one task at a time."""

    system = "plain"

    def start(self, concurrency: int, *, drain: bool = True) -> list[Process]:
        """Start one parent per task at a time."""
        if not drain:
            raise NotImplementedError("the plain worker has no idle loop to measure")
        return [self.run(manage("plain_worker")) for _ in range(concurrency)]
