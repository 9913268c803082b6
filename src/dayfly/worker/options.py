"""Parent side: plain data. How one worker is to work: settings, overruled by flags."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from uuid import uuid4

from dayfly.conf import Settings
from dayfly.executor.recycle import AfterCalls, RecyclePolicy
from dayfly.queue import Selection

MAX_LOOK_AHEAD = 50
#: A worker that runs tasks itself sends no heartbeat meanwhile, and would lose long ones to others.
INLINE_LEASE_SECONDS = 3_600.0


def default_name() -> str:
    """Make a worker id: the host's name and something that no other worker has."""
    return f"{socket.gethostname()[:50]}-{uuid4().hex[:12]}"


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Everything that a Worker needs to know. Durations are seconds."""

    settings: Settings
    backend_name: str = "default"
    using: str = "default"
    name: str = field(default_factory=default_name)
    #: None: every queue.
    queues: tuple[str, ...] | None = None
    exclude_queues: tuple[str, ...] = ()
    concurrency: int = field(default_factory=usable_cpus)
    policy: RecyclePolicy = field(default_factory=AfterCalls)
    #: How children come to be: "fork", "template" or "spawn"; "inline": tasks run in the worker.
    launcher: str = "fork"
    #: The settings module of a template or a spawned child; None: the worker's own.
    template_settings: str | None = None
    #: Modules that a template imports, besides the `tasks` of each app.
    preload: tuple[str, ...] = ()
    #: Dotted path of a function that a template calls last.
    warm_up: str = ""
    #: A template that had nothing to do for so long leaves; None: never.
    template_idle_seconds: float | None = None
    #: Children forked ahead; None: as many as run.
    standby: int | None = None
    #: Jobs claimed ahead at most, while tasks are short.
    look_ahead: int = MAX_LOOK_AHEAD
    #: Leave after so many jobs.
    max_tasks: int | None = None
    #: Leave when the queue is empty.
    batch: bool = False
    interval: float = 1.0
    #: Between the first request to stop and stopping the children; None: wait for them.
    grace_seconds: float | None = None
    workdir: str | None = None
    #: Start again when a loaded source file changes.
    reload: bool = False
    #: Write what tasks print to the worker's own stdout, too.
    show_output: bool = False

    def __post_init__(self) -> None:
        if self.is_inline:
            # Nothing runs beside a task, so nothing is claimed that would wait for its end.
            object.__setattr__(self, "concurrency", 1)
            object.__setattr__(self, "look_ahead", 0)

    @property
    def is_inline(self) -> bool:
        """Whether tasks run in the worker itself."""
        return self.launcher == "inline"

    @property
    def loads_project(self) -> bool:
        """Whether children come from an interpreter of their own, which may load other settings."""
        return self.launcher in ("template", "spawn")

    @property
    def forks(self) -> bool:
        """Whether this process may be forked: also where a template may be refused."""
        return self.launcher in ("fork", "template")

    @property
    def lease_seconds(self) -> float:
        """How long this worker may be silent before its jobs are rescued."""
        lease_seconds = self.settings.lease_seconds
        return max(lease_seconds, INLINE_LEASE_SECONDS) if self.is_inline else lease_seconds

    @property
    def selection(self) -> Selection:
        """Which jobs are claimed."""
        return Selection(
            backend_name=self.backend_name, queues=self.queues, exclude=self.exclude_queues
        )
