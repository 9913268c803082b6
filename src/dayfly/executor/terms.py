"""Both sides: plain data. What parent and child agree on before the fork."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dayfly.executor.call import Call
from dayfly.executor.limits import NO_LIMITS, Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for every child of an executor."""

    #: Where children work: the path as configured, symlinks unresolved, so that it
    #: names the new release after a deployment. None: stay where the parent is.
    workdir: str | None = None
    #: How long a child waits for a workdir that a deployment is just replacing.
    workdir_wait_seconds: float = 5.0
    #: Run in the parent just before it forks a child, or the template, for what must not be open then.
    before_fork: tuple[Callable[[], None], ...] = ()
    #: A call that does what every call does beside its own work, and leaves no trace. A template runs
    #: it some times before its first fork: see rehearsal.py. None: one that does nothing.
    rehearsal: Call | None = None
    #: Run in each new child, signals still blocked, descriptors already gone.
    after_fork: tuple[Callable[[], None], ...] = ()
    #: Run in each child, once it is ready and before its first call, by whatever it was forked.
    before_calls: tuple[Callable[[], None], ...] = ()
    #: Run in each child before it leaves; errors are printed and otherwise ignored.
    before_exit: tuple[Callable[[], None], ...] = ()
    #: Shown in process lists, in front of the call's title.
    title: str = "dayfly: child"
    #: Added for the kernel's choice of whom to kill when memory runs out.
    oom_score_adj: int | None = 500
    #: A value or payload beyond this is refused.
    max_value_bytes: int = 64 << 20
    #: How much of stdout and stderr is kept per run: its tail.
    max_output_bytes: int = 64 << 10
    #: For calls that bring no limits of their own.
    limits: Limits = NO_LIMITS
    #: Give calls with a memory limit a cgroup of their own, where this process has a delegated one.
    use_cgroup: bool = False
    #: How long a child may take to leave once it has nothing left to do.
    leave_seconds: float = 10.0
