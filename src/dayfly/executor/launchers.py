"""
Parent side: how children come to be, and how they are waited for.

`FromParent` forks them straight from this process: they see it as it is now. `FromTemplate`
(templates.py) has a process of its own fork them. `FromScratch` starts an interpreter for each.
What takes time is answered later, by a callback: the parent never waits for a fork.
"""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn, Protocol

from dayfly.executor import child as child_side
from dayfly.executor import hugepages, interpreters
from dayfly.executor.fork import fork
from dayfly.executor.source import Source
from dayfly.executor.terms import Terms
from dayfly.executor.tidy import StandardStreams


class NoTemplate(OSError):
    """The template that was to fork a child is not there; why was said when it ended."""


@dataclass(frozen=True, slots=True)
class Birth:
    """A child that was forked, or why it was not."""

    pid: int = 0
    #: What the fork itself took; None where nobody has told.
    fork_seconds: float | None = None
    error: OSError | None = None
    #: It is an interpreter of its own, which says when it has loaded, and may take so long; else None.
    load_seconds: float | None = None
    #: It is of a template that was replaced meanwhile, and should run nothing.
    is_outdated: bool = False


@dataclass(frozen=True, slots=True)
class Death:
    """What wait4 says of a dead child; None where somebody else has waited for it."""

    status: int | None = None
    rusage: resource.struct_rusage | None = None


OnBirth = Callable[[Birth], None]
OnDeath = Callable[[Death], None]


class Host(Protocol):
    """What a launcher with processes of its own needs of whom it works for."""

    def watch_fd(self, fd: int, handler: Callable[[], None]) -> None:
        """Call *handler* whenever *fd* is readable."""

    def unwatch_fd(self, fd: int) -> None:
        """Stop; harmless for a descriptor that is not watched, or closed."""

    def outdate_children(self) -> None:
        """Give no more calls to the children that are there: the project has changed."""


class Launcher(Protocol):
    """Brings forth children, and waits for them."""

    def spawn(self, channel: socket.socket, output_fd: int, on_birth: OnBirth) -> None:
        """
        Have a child that keeps *channel* and *output_fd*; tell *on_birth*, now or later.

        Both descriptors may be closed as soon as this returns. Where a hook of the host raises,
        so does this, and nothing is told.
        """

    def reap(self, pid: int, on_death: OnDeath) -> None:
        """Wait for *pid*, which is dead; tell *on_death*, now or later."""

    def pids(self) -> list[int]:
        """Return the processes that the launcher itself keeps."""

    def keep_time(self, now: float) -> None:
        """Do what is due by *now*, on the monotonic clock."""

    def next_event(self) -> float | None:
        """Return when something is due."""

    def use_huge_pages(self) -> None:
        """Put the heap that children are forked from into huge pages, this process's or a template's."""

    def renew(self) -> None:
        """Fork from what the project is now, as soon as that is loaded."""

    def rest(self) -> None:
        """End what the launcher keeps, until the next spawn."""

    def close(self) -> None:
        """End what the launcher itself keeps, and the children that it still has."""


class FromParent:
    """Forks children straight from this process."""

    def __init__(self, terms: Terms, workdir_known: tuple[int, int] | None) -> None:
        self._terms = terms
        self._workdir_known = workdir_known
        self._streams = StandardStreams()

    def spawn(self, channel: socket.socket, output_fd: int, on_birth: OnBirth) -> None:
        """Fork a child; see Launcher."""
        for hook in self._terms.before_fork:
            hook()
        began = time.monotonic()
        try:
            pid = fork(partial(self._live, channel, output_fd, os.getpid()))
        except OSError as error:
            on_birth(Birth(error=error))
        else:
            on_birth(Birth(pid, time.monotonic() - began))

    def reap(self, pid: int, on_death: OnDeath) -> None:
        """Wait for *pid*; see Launcher."""
        on_death(wait_for(pid))

    def pids(self) -> list[int]:
        """Return nothing: there is no process but the children."""
        return []

    def keep_time(self, now: float) -> None:
        """Nothing is ever due."""

    def next_event(self) -> float | None:
        """Nothing is ever due."""
        return None

    def use_huge_pages(self) -> None:
        """Collapse our own heap, once."""
        hugepages.collapse_heap()

    def renew(self) -> None:
        """Every child sees the parent as it is."""

    def rest(self) -> None:
        """There is nothing to end."""

    def close(self) -> None:
        """There is nothing to end."""

    def _live(self, channel: socket.socket, output_fd: int, parent_pid: int) -> NoReturn:
        child_side.live(
            channel,
            output_fd,
            self._streams,
            self._terms,
            parent_pid=parent_pid,
            workdir_known=self._workdir_known,
        )


class FromScratch(FromParent):
    """Starts a fresh interpreter for each child: slow, and nothing is inherited."""

    def __init__(self, terms: Terms, workdir_known: tuple[int, int] | None, source: Source) -> None:
        super().__init__(terms, workdir_known)
        self._order = interpreters.write_order(source, terms, workdir_known)
        self._environment = dict(source.environment)
        self._load_seconds = source.start_seconds

    def use_huge_pages(self) -> None:
        """Nobody is forked."""

    def spawn(self, channel: socket.socket, output_fd: int, on_birth: OnBirth) -> None:
        """Execute Python; see Launcher."""
        began = time.monotonic()
        fds = [channel.fileno(), output_fd]
        try:
            pid = interpreters.start("child", self._order, fds, self._environment)
        except OSError as error:
            on_birth(Birth(error=error))
        else:
            on_birth(Birth(pid, time.monotonic() - began, load_seconds=self._load_seconds))


def wait_for(pid: int) -> Death:
    """Wait for a dead child of this process, by its pid: never for any child, which may be the host's."""
    try:
        _, status, rusage = os.wait4(pid, 0)
    except ChildProcessError:
        return Death()  # the host ignores SIGCHLD, or waits for any child
    return Death(status, rusage)
