"""
Child side: the template, from which children are forked.

Either a copy of the parent, forked once and tidied once, or a fresh interpreter that has
loaded a project (fresh.py). Then it does what the parent asks on its socket: fork a child
around two descriptors, wait for one that is dead. It runs no code but this, so its pages
stay as they were, shared with its children. What those leave behind passes to it, and not to the
parent, who may not wait for children that it does not know; now and then it waits for the dead ones.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from dayfly.executor import child, hugepages, orphans, rehearsal, tidy, titles
from dayfly.executor.fork import fork
from dayfly.executor.terms import Terms

#: How often it looks for dead orphans, while it has any children.
LOOK_SECONDS = 2.0

Answer = dict[str, Any]
Newborn = Callable[[socket.socket, int], NoReturn]


def live_as_copy(
    control: socket.socket,
    streams: tidy.StandardStreams,
    terms: Terms,
    *,
    parent_pid: int,
    workdir_known: tuple[int, int] | None,
    huge_pages: bool,
) -> NoReturn:
    """Live the life of a template that was forked: get rid of all that a child must not have, and serve."""
    tidy.reset_signals()
    tidy.own_group()
    tidy.die_with_parent(parent_pid)
    streams.install(None)
    tidy.drop_descriptors(keep={control.fileno()})
    tidy.reopen_logs()
    for hook in terms.after_fork:
        hook()
    gc.freeze()  # what the parent has not frozen: a collection would copy it all
    rehearsal.rehearse(terms)
    if huge_pages:
        hugepages.collapse_heap()  # last, as what is written now splits them
    tidy.unblock_signals()
    say(control, {"ready": True})
    serve(control, streams, terms, workdir_known=workdir_known)


def serve(
    control: socket.socket,
    streams: tidy.StandardStreams,
    terms: Terms,
    *,
    workdir_known: tuple[int, int] | None,
) -> NoReturn:
    """
    Fork and reap children as asked, until the parent closes the line, or dies; then end them.

    Children outlive a template that is killed: the parent, a subreaper, gets them. So they do not
    ask to die with the template; in the end it is the template that ends them.
    """
    titles.show("dayfly: template", short="dayfly-template")
    line = _Line(control)
    tidy.outlive_parent()  # the line tells of its death; and whoever kills the template means only it
    tidy.adopt_orphans()
    children: set[int] = set()
    is_alone, look_at = True, 0.0

    def newborn(channel: socket.socket, output_fd: int) -> NoReturn:
        line.forget()
        tidy.own_group()
        streams.install(output_fd)
        tidy.point_at_null(output_fd)
        child.live_tidied(channel, terms, workdir_known=workdir_known)

    while True:
        heard = line.hear(None if is_alone else LOOK_SECONDS)
        if heard is not None:
            question, fds = heard
            if not question:
                _end(children)
            say(control, _answer(json.loads(question), fds, newborn, children))
            is_alone = False
        if time.monotonic() >= look_at:
            orphans.reap(children)
            is_alone = orphans.is_childless()
            look_at = time.monotonic() + LOOK_SECONDS


class _Line:
    """The line to the parent, made while the template still dies with it."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        # Where other code of the parent's has forked, the copy holds the other end of the socket, too,
        # and there is no end-of-file while it lives.
        self._parent = os.pidfd_open(os.getppid())
        self._poll = select.poll()
        for fd in (control.fileno(), self._parent):
            self._poll.register(fd, select.POLLIN)

    def hear(self, seconds: float | None) -> tuple[bytes, list[int]] | None:
        """
        Wait for a question, and the descriptors that come with it. None: there was none in time.

        An empty one: there is no parent any more.
        """
        events = dict(self._poll.poll(None if seconds is None else seconds * 1000))
        if not events:
            return None
        if self._parent in events:
            return b"", []
        try:
            question, fds, _, _ = socket.recv_fds(self._control, 4096, 2)
        except ConnectionResetError:  # it died with an answer of ours unread
            return b"", []
        return question, fds

    def forget(self) -> None:
        """Put it out of reach, in a child."""
        tidy.point_at_null(self._control.fileno())
        tidy.point_at_null(self._parent)


def say(control: socket.socket, answer: Answer) -> None:
    """Answer the parent; nobody hears it when the parent is gone, which the next question tells."""
    try:
        control.send(json.dumps(answer).encode())
    except OSError:
        pass


def _answer(order: dict[str, Any], fds: list[int], newborn: Newborn, children: set[int]) -> Answer:
    if order["do"] == "spawn":
        answer = _spawn(newborn, *fds)
        children.add(answer.get("pid", 0))
    else:
        answer = _reap(order["pid"])
        children.discard(order["pid"])
    return answer


def _spawn(newborn: Newborn, channel_fd: int, output_fd: int) -> Answer:
    channel = socket.socket(fileno=channel_fd)
    channel.set_inheritable(False)  # what came over a socket is inherited by exec otherwise
    began = time.monotonic()
    try:
        pid = fork(partial(newborn, channel, output_fd))
    except OSError as error:
        return {"errno": error.errno}
    finally:
        channel.close()
        os.close(output_fd)
    return {"pid": pid, "fork_seconds": time.monotonic() - began}


def _reap(pid: int) -> Answer:
    """Wait for a child that its pidfd says is dead."""
    try:
        _, status, rusage = os.wait4(pid, 0)
    except ChildProcessError:
        return {"status": None}
    return {"status": status, "rusage": tuple(rusage)}


def _end(children: set[int]) -> NoReturn:
    for pid in children - {0}:
        for kill in (os.killpg, os.kill):  # one that was just forked has no group yet
            try:
                kill(pid, signal.SIGKILL)
            except OSError:
                pass
    for pid in children - {0}:
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass
    orphans.reap(())  # those that are left are the parent's, when this is gone
    os._exit(0)
