"""
Child side: the life of a child, from the fork to os._exit.

    tidy up -> wait for a CALL -> run it -> send the REPORT -> next CALL, or leave

A RECORDED for an earlier call may come in between; what waits for one keeps the child from leaving.

End-of-file on the socket means that the parent wants no more of it, or is gone.
"""

from __future__ import annotations

import gc
import os
import pickle
import resource
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, NoReturn

from dayfly.executor import carry, confine, farewell, memory, tidy, titles, wire, workdir
from dayfly.executor.call import INHERITED, RAW, resolve
from dayfly.executor.child_codes import EXIT_CANNOT_REPORT
from dayfly.executor.errors import CallNotSendable, message_of
from dayfly.executor.outcome import Failure, MemoryReading
from dayfly.executor.terms import Terms

#: Modules between our frames and those of a Django task.
FRAMES_BETWEEN = frozenset({"django.tasks.base", "django_tasks.base"})
MAX_MESSAGE_CHARS = 2_000
MAX_TRACEBACK_CHARS = 100_000

_callbacks: list[Callable[[], None]] = []


def when_recorded(callback: Callable[[], None]) -> None:
    """
    Run *callback* in this child once the parent has recorded the report of the current call.

    For what must not be seen before the outcome is: the signal that a task has finished.
    Never run when the parent dies first.
    """
    _callbacks.append(callback)


def take_callbacks() -> list[Callable[[], None]]:
    """Return what waits for the record of the current call, and forget it here."""
    taken = _callbacks[:]
    _callbacks.clear()
    return taken


def live(
    channel: socket.socket,
    output_fd: int,
    streams: tidy.StandardStreams,
    terms: Terms,
    *,
    parent_pid: int,
    workdir_known: tuple[int, int] | None,
) -> NoReturn:
    """Live a child's life. *channel* and *output_fd* are all that it keeps of its parent's."""
    tidy.reset_signals()
    tidy.own_group()
    tidy.die_with_parent(parent_pid)
    streams.install(output_fd)
    tidy.drop_descriptors(keep={channel.fileno()})
    tidy.reopen_logs()
    for hook in terms.after_fork:
        hook()
    _begin(channel, terms, workdir_known)


def live_tidied(
    channel: socket.socket,
    terms: Terms,
    *,
    workdir_known: tuple[int, int] | None,
    was_executed: bool = False,
) -> NoReturn:
    """Live the life of a child that was born with nothing that a child must not have."""
    _begin(channel, terms, workdir_known, was_executed=was_executed)


def _begin(
    channel: socket.socket,
    terms: Terms,
    workdir_known: tuple[int, int] | None,
    *,
    was_executed: bool = False,
) -> NoReturn:
    tidy.reseed_numpy()
    tidy.volunteer_for_oom_killer(terms.oom_score_adj)
    _show(f"{terms.title} (standby)")
    life = Life(channel, terms, workdir_known, was_executed=was_executed)
    life.confinement.listen()
    tidy.unblock_signals()
    gc.enable()
    for hook in terms.before_calls:
        hook()
    channel.setblocking(True)
    if was_executed:
        channel.sendall(wire.encode(wire.READY))
    life.serve()


class Life:
    """One child's state: its socket, and who it is."""

    def __init__(
        self,
        channel: socket.socket,
        terms: Terms,
        workdir_known: tuple[int, int] | None,
        *,
        was_executed: bool = False,
    ) -> None:
        self.channel = channel
        self.read_peak = memory.peak_since_exec_bytes if was_executed else memory.peak_bytes
        self.terms = terms
        self.workdir_known = workdir_known
        self.confinement = confine.Confinement()
        self.pid = os.getpid()
        status = os.fstat(channel.fileno())
        self.channel_identity = (status.st_dev, status.st_ino)
        self.reader = wire.Reader(terms.max_value_bytes)
        #: What waits until the report of a call is recorded, by the call's id.
        self.waiting: dict[str, list[Callable[[], None]]] = {}
        self.had_last = False

    def serve(self) -> NoReturn:
        """Run calls until there are no more, and what waits for their reports to be recorded."""
        while self.take_frame():
            pass
        farewell.leave(self.terms.before_exit)

    def take_frame(self) -> bool:
        """Do what the parent says next; tell whether more is to come."""
        frame = self._receive()
        if frame is None:
            return False  # the parent is gone, or wants no more of us: others tell the world
        if frame.kind == wire.RECORDED:
            for call_id in frame.head["ids"]:
                self._call_back(call_id)
        elif frame.kind == wire.REFUSED:
            for call_id in frame.head["ids"]:
                self.waiting.pop(call_id, None)
        else:
            self._run_and_report(frame)
            self.had_last = frame.head["is_last"]
            if not self.had_last:
                _show(f"{self.terms.title} (standby)")
        return bool(self.waiting) or not self.had_last

    def _run_and_report(self, frame: wire.Frame) -> None:
        order = frame.head
        memory.reset_peak()
        _show(f"{self.terms.title} {order['title']} {order['id']}")
        confined = partial(self.confinement.hold, order)
        head, value = run(
            order, frame.body, self.terms, self.workdir_known, confined, self.read_peak
        )
        if os.getpid() != self.pid:
            # The call forked, and this is the copy, come back from it: it has no call.
            farewell.leave(())
        if not self._has_its_channel():
            # Before flushing: the call closed everything, and fd 1 may be a file of its own by now.
            os._exit(EXIT_CANNOT_REPORT)
        farewell.flush_streams()
        if callbacks := take_callbacks():
            self.waiting[head["id"]] = callbacks
        head["waits"] = head["id"] in self.waiting
        head["is_worn"] = self.confinement.is_worn
        self._send(wire.encode(wire.REPORT, head, value))

    def _call_back(self, call_id: str) -> None:
        for callback in self.waiting.pop(call_id, ()):
            try:
                callback()
            except BaseException:  # noqa: BLE001 - the run is recorded; it cannot fail any more
                traceback.print_exc()

    def _has_its_channel(self) -> bool:
        """Tell whether the socket's number still means our socket, and not a file of the call's."""
        try:
            status = os.fstat(self.channel.fileno())
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self.channel_identity

    def _send(self, data: bytes) -> None:
        try:
            self.channel.sendall(data)
        except OSError:
            os._exit(EXIT_CANNOT_REPORT)

    def _receive(self) -> wire.Frame | None:
        while True:
            try:
                frame = self.reader.next()
                if frame is not None:
                    return frame
                data = self.channel.recv(1 << 16)
            except (OSError, wire.Garbage):
                return None
            if not data:
                return None
            self.reader.feed(data)


def run(
    order: dict[str, Any],
    body: bytes,
    terms: Terms,
    workdir_known: tuple[int, int] | None,
    confined: Callable[[Callable[[], bytes]], bytes],
    read_peak: Callable[[resource.struct_rusage], int],
) -> tuple[dict[str, Any], bytes]:
    """
    Run one call; return the head of its report and its value. Never raises.

    *confined* calls what it is given, and holds it to the limits of the call meanwhile.
    """
    read = memory.thorough if order["memory_in_detail"] else memory.quick
    modules_before = len(sys.modules)
    usage_start = resource.getrusage(resource.RUSAGE_SELF)
    memory_start = read()
    started_ns = time.monotonic_ns()
    value, failure, cause = b"", None, None
    try:
        value = confined(partial(_enter_and_call, order, body, terms, workdir_known))
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are endings like others
        failure = describe(error)
        cause = confine.cause_of(error, order)
        if order["codec"] != RAW:
            value = carry.pack_error(error, terms.max_value_bytes)
    finished_ns = time.monotonic_ns()
    memory_end = read()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    head: dict[str, Any] = {
        "id": order["id"],
        "cause": cause,
        "failure": None
        if failure is None
        else [failure.exception_class_path, failure.message, failure.traceback],
        "started_ns": started_ns,
        "finished_ns": finished_ns,
        "memory_start": _figures(memory_start),
        "memory_end": _figures(memory_end),
        "peak_rss_bytes": _highest(read_peak(usage), memory_start, memory_end),
        "usage": [
            usage.ru_utime - usage_start.ru_utime,
            usage.ru_stime - usage_start.ru_stime,
            usage.ru_minflt - usage_start.ru_minflt,
            usage.ru_majflt - usage_start.ru_majflt,
        ],
        "new_modules": max(len(sys.modules) - modules_before, 0),
    }
    return head, value


def _enter_and_call(
    order: dict[str, Any], body: bytes, terms: Terms, workdir_known: tuple[int, int] | None
) -> bytes:
    if terms.workdir is not None:
        workdir.enter(terms.workdir, wait_seconds=terms.workdir_wait_seconds, known=workdir_known)
    return _call(order, body, terms.max_value_bytes)


def _call(order: dict[str, Any], body: bytes, max_value_bytes: int) -> bytes:
    if order["codec"] != RAW:
        is_here = order["codec"] == INHERITED
        function, args, kwargs = (
            carry.inherited.pop(order["id"]) if is_here else carry.unpack_call(body)
        )
        result = function(*args, **kwargs)
        try:
            value = pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
        except MemoryError:
            raise  # of a limit, and not of the value
        except Exception as error:
            message = (
                f"What the function returned, a {type(result).__qualname__}, cannot be sent back:"
                f" {message_of(error)}"
            )
            raise CallNotSendable(message) from error
    else:
        value = resolve(order["target"])(body)
        if not isinstance(value, bytes):
            message = f"{order['target']} returned a {type(value).__qualname__}, not bytes."
            raise CallNotSendable(message)
    if len(value) > max_value_bytes:
        message = (
            f"What the function returned is {len(value)} bytes; the limit is {max_value_bytes}."
        )
        raise CallNotSendable(message)
    return value


def describe(error: BaseException) -> Failure:
    """Put *error* into words. Never raises, whatever the exception's own methods do."""
    kind = type(error)
    path = f"{kind.__module__}.{kind.__qualname__}"
    message = message_of(error)
    try:
        text = "".join(traceback.format_exception(kind, error, _of_the_call(error.__traceback__)))
    except BaseException:  # noqa: BLE001 - a broken __str__ or __cause__
        text = f"{path}: {message}\n"
    return Failure(
        exception_class_path=_clean(path, 500),
        message=_clean(message, MAX_MESSAGE_CHARS),
        traceback=_clean(text, MAX_TRACEBACK_CHARS),
    )


def _of_the_call(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames above the function that was called: they are the same in each traceback."""
    while trace is not None and _is_ours(trace.tb_frame.f_globals.get("__name__", "")):
        trace = trace.tb_next
    return trace


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "dayfly" or module in FRAMES_BETWEEN


def _clean(text: str, max_chars: int) -> str:
    if len(text) > max_chars:
        half = max_chars // 2
        text = (
            f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
        )
    # Lone surrogates cannot be stored or sent.
    return text.encode("utf-8", "backslashreplace").decode()


def _show(title: str) -> None:
    titles.show(title, short="dayfly-child")


def _highest(peak_bytes: int, *readings: MemoryReading | None) -> int:
    """The kernel's high-water mark lags behind by some pages per CPU; what was read was held, too."""
    return max(peak_bytes, *(each.rss_bytes for each in readings if each))


def _figures(reading: MemoryReading | None) -> list[int | None] | None:
    if reading is None:
        return None
    return [reading.rss_bytes, reading.anon_bytes, reading.uss_bytes, reading.pss_bytes]
