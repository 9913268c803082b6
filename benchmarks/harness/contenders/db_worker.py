"""db_worker of django-tasks-db: one task at a time in the worker's own process, no isolation."""

from __future__ import annotations

from pathlib import Path

from harness.contenders.base import DjangoContender
from harness.process import Process, manage
from harness.servers import Servers


class DbWorker(DjangoContender):
    """As many workers as tasks at a time; their default interval, no random delay at start."""

    system = "db_worker"

    def __init__(self, place: str, servers: Servers, workspace: Path, *, conn_max_age: str) -> None:
        super().__init__(place, servers, workspace)
        self.conn_max_age = conn_max_age

    def environment(self) -> dict[str, str]:
        """Add how long a connection lives."""
        return {**super().environment(), "DAYFLY_BENCH_CONN_MAX_AGE": self.conn_max_age}

    def start(self, concurrency: int, *, drain: bool = True) -> list[Process]:
        """Start one worker per task at a time."""
        command = manage("db_worker", "--backend=default", "--no-startup-delay")
        if drain:
            command.append("--batch")
        return [self.run(command) for _ in range(concurrency)]
