"""dayfly itself: one worker, its own concurrency."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from harness.contenders.base import DjangoContender
from harness.process import Process, manage
from harness.servers import Servers


class Dayfly(DjangoContender):
    """`manage.py runworker` with Django's default settings and dayfly's default options, but for the launcher."""

    system = "dayfly"

    def __init__(
        self,
        place: str,
        servers: Servers,
        workspace: Path,
        *,
        tasks_per_child: int,
        launcher: str = "fork",
    ) -> None:
        super().__init__(place, servers, workspace)
        self.tasks_per_child = tasks_per_child
        self.launcher = launcher

    def missing(self) -> str | None:
        """Without the command there is nothing to measure."""
        if find_spec("dayfly.management.commands.runworker") is None:
            return "This checkout has no `manage.py runworker`: the rows of dayfly are left out."
        return None

    def start(self, concurrency: int, *, drain: bool = True) -> list[Process]:
        """Start one worker."""
        command = manage(
            "runworker",
            "--backend=default",
            f"--concurrency={concurrency}",
            f"--max-tasks-per-child={self.tasks_per_child}",
            f"--launcher={self.launcher}",
        )
        return [self.run([*command, "--batch"] if drain else command)]
