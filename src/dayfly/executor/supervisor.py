"""
Parent side: the system calls. Forks children, reads and writes their sockets, kills and reaps.

Never waits for any child but its own, by pid: it lives beside children of its host.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from dayfly.executor import memory, output, reports, wire
from dayfly.executor.call import Call
from dayfly.executor.children import Child, Children, State
from dayfly.executor.launchers import Birth, Death, Host, Launcher, wait_for
from dayfly.executor.lines import open_lines
from dayfly.executor.outcome import ChildExit, MemoryReading, Outcome, RunReport
from dayfly.executor.recycle import RecyclePolicy, policy_calls, policy_keeps
from dayfly.executor.runner import LONGEST_WAIT_SECONDS
from dayfly.executor.terms import Terms
from dayfly.executor.watch import Watch

#: How many exits are kept for a host that does not ask for them: memory must stay flat.
MAX_EXITS = 256
_READ_BYTES = 1 << 16
#: What one child may have to say before the others have their turn: 4 MiB.
_READS_PER_EVENT = 64


class Supervisor:
    """Looks after the children of one executor."""

    def __init__(
        self,
        terms: Terms,
        policy: RecyclePolicy,
        make_launcher: Callable[[Host], Launcher],
    ) -> None:
        self.children = Children()
        self.reports: list[RunReport] = []
        self.exits: deque[ChildExit] = deque(maxlen=MAX_EXITS)
        #: Children that were asked for, and are not there yet.
        self.unborn = 0
        #: Why the last child was not born, since somebody last looked.
        self.refusal: OSError | None = None
        #: Children that died before they could run anything, since somebody last looked.
        self.stillborn = 0
        #: Whether a call was run since a child last died at birth, or was not to be had.
        self.births_go_well = True
        self.watch = Watch(self.children, terms)
        self._terms = terms
        self._policy = policy
        self._poll = select.epoll()
        self._on_event: dict[int, Callable[[], None]] = {}
        self.launcher = make_launcher(self)

    def fileno(self) -> int:
        """Return a descriptor that is readable when a child wants something."""
        return self._poll.fileno()

    def spawn(self) -> None:
        """
        Have one more child, which then waits for a call. It is there at once, or after a while.

        Or never: `refusal` says why. What a hook of the host raises is the host's.
        """
        try:
            ours, theirs, output_read, output_write = open_lines()
        except OSError as error:
            self.refusal = error
            return
        self.unborn += 1
        try:
            self.launcher.spawn(
                theirs, output_write, partial(self._born, ours, output_read, memory.quick())
            )
        except BaseException:
            self.unborn -= 1
            ours.close()
            os.close(output_read)
            raise
        finally:
            theirs.close()
            os.close(output_write)

    def _born(
        self,
        ours: socket.socket,
        output_read: int,
        parent_before_fork: MemoryReading | None,
        birth: Birth,
    ) -> None:
        self.unborn -= 1
        try:
            if birth.error is not None:
                raise birth.error
            pidfd = self._open_pidfd(birth.pid)
        except OSError as error:
            self.refusal = error
            self.births_go_well = False
            ours.close()  # a child that is there all the same hears that nobody wants it
            os.close(output_read)
            return
        child = Child(
            pid=birth.pid,
            pidfd=pidfd,
            channel=ours,
            output_fd=output_read,
            reader=wire.Reader(self._terms.max_value_bytes),
            calls_allowed=policy_calls(self._policy),
            fork_seconds=birth.fork_seconds,
            parent_before_fork=parent_before_fork,
            load_seconds=birth.load_seconds,
            was_executed=birth.load_seconds is not None,
        )
        ours.setblocking(False)
        os.set_blocking(output_read, False)  # ours alone: the child's writes must wait for room
        self._watch_child(child)
        self.children.add(child)
        if birth.is_outdated:
            self.dismiss(child)

    def _open_pidfd(self, pid: int) -> int:
        try:
            return os.pidfd_open(pid)
        except OSError:
            # Not to be watched, so not to be had.
            os.kill(pid, signal.SIGKILL)
            self.launcher.reap(pid, lambda death: None)
            raise

    def send_call(self, child: Child, call: Call) -> None:
        """Hand *call* to a child on standby."""
        now, now_ns = time.monotonic(), time.monotonic_ns()
        self.children.dispatch(child, call, now=now, now_ns=now_ns, limits=self._terms.limits)
        if child.load_seconds is None:
            self._send_call(child, call)

    def _send_call(self, child: Child, call: Call) -> None:
        self.watch.begin(child)
        soft = child.soft_deadline
        order = call.order(
            is_last=child.is_last_call,
            # A little before the signal comes, as the child takes one that comes earlier for another's.
            soft_ns=None if soft is None else int(soft * 1e9) - 1_000_000,
            data_bytes=child.limits.data_limit_bytes,
            nice=child.limits.nice,
        )
        self._send(child, wire.encode(wire.CALL, order, call.payload))

    def say_recorded(self, child: Child, call_ids: list[str], *, stands: bool) -> None:
        """Tell a child that its reports of *call_ids* are recorded, or do not stand: see Runner."""
        now, leave = time.monotonic(), self._terms.leave_seconds
        for call_id in call_ids:
            self.children.recorded(child, call_id, stands=stands, now=now, leave=leave)
        kind = wire.RECORDED if stands else wire.REFUSED
        self._send(child, wire.encode(kind, {"ids": call_ids}))
        self._close_if_leaving(child)

    def wait(self, timeout: float | None) -> bool:
        """Handle what children want, waiting up to *timeout* seconds; tell whether anything came."""
        next_event = self.next_event()
        if next_event is not None:
            until = max(next_event - time.monotonic(), 0)
            timeout = until if timeout is None else min(timeout, until)
        if timeout is not None:
            timeout = min(timeout, LONGEST_WAIT_SECONDS)
        events = [(fd, self._on_event.get(fd)) for fd, _ in self._poll.poll(timeout)]
        for fd, handler in events:
            # An earlier event may have ended the child, and another may have got the number since.
            if handler is not None and self._on_event.get(fd) is handler:
                handler()
        self.watch.keep()
        self.launcher.keep_time(time.monotonic())
        return bool(events)

    def next_event(self) -> float | None:
        """Return when something is due, on the monotonic clock."""
        moments = (self.children.next_event(), self.launcher.next_event())
        return min((moment for moment in moments if moment is not None), default=None)

    def end(self, child: Child, why: Outcome, *, grace_seconds: float) -> None:
        """Ask all processes of the child to leave; kill them after *grace_seconds*."""
        self.watch.end(child, why, grace_seconds=grace_seconds)

    def dismiss(self, child: Child) -> None:
        """Let a child on standby go."""
        self.children.let_go(child, now=time.monotonic(), leave=self._terms.leave_seconds)
        self._close_if_leaving(child)

    def hang_up(self, child: Child) -> None:
        """Let a child go whose report will not be recorded any more: it hears end-of-file."""
        self._shut(child)

    def close(self) -> None:
        """Kill what is left, reap it, and close every descriptor."""
        for child in self.children:
            self.watch.signal(child, signal.SIGKILL)
        self.launcher.close()
        for child in self.children:
            if not child.is_reaped:
                # One that was on its way came to light when its template was ended.
                self.watch.signal(child, signal.SIGKILL)
                self._dead(child, wait_for(child.pid))  # unless the launcher has done so
        self.watch.close()
        self._poll.close()

    def outdate_children(self) -> None:
        """Let children on standby go, and the others after the call that they run."""
        for child in self.children:
            if child.state is State.STANDBY:
                self.dismiss(child)
            else:
                child.calls_allowed = child.calls_served

    def watch_fd(self, fd: int, handler: Callable[[], None]) -> None:
        """Call *handler* whenever *fd* is readable."""
        self._poll.register(fd, select.EPOLLIN)
        self._on_event[fd] = handler

    def unwatch_fd(self, fd: int) -> None:
        """Stop; harmless for a descriptor that is not watched, or closed."""
        if self._on_event.pop(fd, None) is not None:
            with contextlib.suppress(OSError):  # closed: then it has left the set by itself
                self._poll.unregister(fd)

    def _watch_child(self, child: Child) -> None:
        for fd, handler in (
            (child.channel.fileno(), self._on_channel),
            (child.output_fd, self._on_output),
            (child.pidfd, self._on_death),
        ):
            if fd is not None:
                self.watch_fd(fd, partial(handler, child))

    def _send(self, child: Child, data: bytes) -> None:
        child.unsent += data
        try:  # without SIGPIPE, which ends a host that has given it its default action again
            sent = child.channel.send(child.unsent, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # it died: its pidfd says so
        del child.unsent[:sent]
        if child.unsent and child.channel.fileno() in self._on_event:
            self._poll.modify(child.channel.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _on_channel(self, child: Child) -> None:
        if child.unsent:
            self._send(child, b"")
            if not child.unsent:
                self._poll.modify(child.channel.fileno(), select.EPOLLIN)
                self._close_if_leaving(child)
        for _ in range(_READS_PER_EVENT):
            try:
                data = child.channel.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""  # reset by a child that died with unread data
            if not data:
                self._hear_no_more(child)
                return
            child.reader.feed(data)
            # After each piece: a child that sends without end must not fill our memory.
            if not self._take_frames(child) or len(data) < _READ_BYTES:
                return

    def _hear_no_more(self, child: Child) -> None:
        """Take the end of what a child says. What ended it is known when it is reaped."""
        self.unwatch_fd(child.channel.fileno())
        if child.state is State.STANDBY:
            child.is_deaf = True
            self.watch.signal(child, signal.SIGKILL)

    def _take_frames(self, child: Child) -> bool:
        """Take what has arrived whole; tell whether it made sense."""
        try:
            while (frame := child.reader.next()) is not None:
                if frame.kind == wire.READY and child.load_seconds is not None:
                    self._take_ready(child)
                    continue
                if frame.kind != wire.REPORT or child.state is not State.BUSY:
                    raise wire.Garbage("it speaks out of turn")
                self._take_report(child, frame)
        except wire.Garbage as error:
            if child.state is State.BUSY and child.ending is None:
                child.ending = Outcome.EXITED
                child.complaint = (
                    f"Child {child.pid} was ended: what it sent in place of a report is unusable, "
                    f"as {error}. Does the task write to descriptors that are not its own?"
                )
            self._hear_no_more(child)
            self.watch.signal(child, signal.SIGKILL)
            return False
        return True

    def _take_ready(self, child: Child) -> None:
        held = self.children.ready(child, now=time.monotonic(), now_ns=time.monotonic_ns())
        if held is not None:
            self._send_call(child, held)

    def _take_report(self, child: Child, frame: wire.Frame) -> None:
        self._drain_output(child, at_most=32)
        report = reports.from_frame(child, frame)
        if child.ending not in (None, Outcome.STOPPED):
            return  # too late; who was only asked to stop, and finished instead, is believed
        self.reports.append(report)
        self.stillborn = 0
        self.births_go_well = True
        child.output.clear()
        child.output_bytes = 0
        is_worn = frame.head.get("is_worn") is True
        # Who was asked to stop has a TERM on its way, which must not hit the next call.
        may_go_on = not child.is_last_call and not is_worn and child.ending is None
        keep = may_go_on and policy_keeps(self._policy, report)
        if not keep:
            child.calls_allowed = child.calls_served
        self.children.reported(
            child,
            waits=frame.head.get("waits") is True,
            keep=keep,
            now=time.monotonic(),
            leave=self._terms.leave_seconds,
        )
        self._close_if_leaving(child)

    def _close_if_leaving(self, child: Child) -> None:
        if child.state is State.LEAVING and not child.unsent:
            self._shut(child)

    def _shut(self, child: Child) -> None:
        try:
            child.channel.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone already

    def _on_output(self, child: Child) -> None:
        self._drain_output(child, at_most=16)

    def _drain_output(self, child: Child, *, at_most: int) -> None:
        if not output.drain(child, at_most=at_most, keep_bytes=self._terms.max_output_bytes):
            self.unwatch_fd(child.output_fd)

    def _on_death(self, child: Child) -> None:
        if child.ending is not None:
            # Those of its group that outlived TERM. Not reaped yet, it still owns the number.
            self.watch.signal(child, signal.SIGKILL)
        if child.pidfd is not None:
            self.unwatch_fd(child.pidfd)
        child.is_deaf = child.is_reaped = True
        child.deadline = child.soft_deadline = child.sample_due = None
        self.launcher.reap(child.pid, partial(self._dead, child))

    def _dead(self, child: Child, death: Death) -> None:
        # Its last words may still be in the socket.
        if child.state is State.BUSY and child.channel.fileno() in self._on_event:
            self._on_channel(child)
        self._drain_output(child, at_most=64)
        self.watch.reaped(child)
        self._forget(child)
        if child.state is State.BUSY:
            report = reports.from_death(
                child,
                death.status,
                death.rusage,
                now_ns=time.monotonic_ns(),
                kills=self.watch.kills,
            )
            self.reports.append(report)
            if report.started_ns is None:
                self._note_stillbirth()
        elif child.call is None and child.state is State.STANDBY:
            self._note_stillbirth()
        elif child.call is not None and child.call.call_id not in child.unrecorded:
            call_id = child.call.call_id
            self.exits.append(reports.exit_of(child, call_id, death.status, was_recorded=True))
        for call_id in child.unrecorded | child.unheard:
            self.exits.append(reports.exit_of(child, call_id, death.status, was_recorded=False))

    def _note_stillbirth(self) -> None:
        self.stillborn += 1
        self.births_go_well = False

    def _forget(self, child: Child) -> None:
        for fd in (child.channel.fileno(), child.output_fd, child.pidfd):
            if fd is not None:
                self.unwatch_fd(fd)
        child.channel.close()
        os.close(child.output_fd)
        if child.pidfd is not None:
            os.close(child.pidfd)
        self.children.remove(child)
