"""Parent side: one template. Asks it, hears its answers, and knows what it owes."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from dayfly.executor.launchers import wait_for

#: A template that does not answer for so long hangs, and is replaced.
ANSWER_SECONDS = 10.0
#: How long one may take to end its children, when all is over.
LEAVE_SECONDS = 2.0
#: Of what can wait, no more is asked at once. A socket holds some 280 messages, and a template that
#: cannot answer does not read: beyond that, it and its parent would wait for each other for ever.
MOST_UNANSWERED = 128

Answer = dict[str, Any]
OnAnswer = Callable[[Answer | None], None]


class Template:
    """One template: asks it, and hears its answers, which come in the order of the questions."""

    def __init__(
        self,
        pid: int,
        control: socket.socket,
        *,
        start_seconds: float,
        unwatch: Callable[[int], None],
    ) -> None:
        """*unwatch* is told the descriptor of *control* just before that is closed."""
        self.pid = pid
        self.began = time.monotonic()
        self.control = control
        self.is_ready = False
        self.is_gone = False
        #: Children that it has forked, and that nobody has waited for yet.
        self.children: set[int] = set()
        #: Another one serves in its place, so what it still forks is of no use.
        self.is_outdated = False
        #: Waits for its last child, and forks no more.
        self.is_retired = False
        #: Nobody minds its end.
        self.is_unwanted = False
        self._unwatch = unwatch
        self._answers: deque[OnAnswer] = deque()
        self._unasked: deque[tuple[dict[str, object], OnAnswer]] = deque()
        self._answer_seconds = start_seconds
        self._deadline: float | None = None

    def expect(self, on_answer: OnAnswer) -> None:
        """Note who wants the next answer but those that are due already."""
        self._answers.append(on_answer)
        if self._deadline is None:
            self._deadline = time.monotonic() + self._answer_seconds

    def ask(self, question: dict[str, object], fds: list[int], on_answer: OnAnswer) -> None:
        """
        Ask, at once or when others are answered; *on_answer* gets None when the template dies first.

        With descriptors it is at once, so that they can be closed: the nursery asks for few of these.
        """
        if self.is_gone:
            on_answer(None)
        elif fds or len(self._answers) < MOST_UNANSWERED:
            self._send(question, fds, on_answer)
        else:
            self._unasked.append((question, on_answer))

    def _send(self, question: dict[str, object], fds: list[int], on_answer: OnAnswer) -> None:
        self.expect(on_answer)
        try:
            socket.send_fds(self.control, [json.dumps(question).encode()], fds)
        except OSError:
            self.give_up()

    def hear(self) -> None:
        """Take the answers that are there."""
        while not self.is_gone:
            try:
                data = self.control.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data or not self._answers:
                self.give_up()
                return
            on_answer = self._answers.popleft()
            self._answer_seconds = ANSWER_SECONDS
            self._deadline = time.monotonic() + ANSWER_SECONDS if self._answers else None
            on_answer(json.loads(data))
            if self._unasked:
                question, on_answer = self._unasked.popleft()
                self._send(question, [], on_answer)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left for it to do, now that it forks no more."""
        return self.is_retired and not (self.children or self._answers or self._unasked)

    @property
    def deadline(self) -> float | None:
        """When the answer that it owes is overdue."""
        return self._deadline

    def give_up(self) -> None:
        """Be done with it: kill it, if it lives, and wait for it. Its children are this process's now."""
        if self.is_gone:
            return
        self.is_gone = True
        self._deadline = None
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # the host has waited for it
        wait_for(self.pid)
        # Before the answers: who gets one may open a descriptor, which gets this number.
        self._unwatch(self.control.fileno())
        self.control.close()
        while self._answers:
            self._answers.popleft()(None)
        while self._unasked:
            _, on_answer = self._unasked.popleft()
            on_answer(None)

    def end(self) -> None:
        """Let it end its children and leave: it hears that nobody will ask any more."""
        if self.is_ready and not self.is_gone:
            self.control.shutdown(socket.SHUT_RDWR)
            _wait_until_dead(self.pid, LEAVE_SECONDS)
        self.give_up()


def _wait_until_dead(pid: int, seconds: float) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return  # the host has waited for it; or no descriptor is left, and it is killed at once
    try:
        poll = select.poll()  # not select(), which takes no descriptor from 1024 up
        poll.register(pidfd, select.POLLIN)
        poll.poll(seconds * 1000)
    finally:
        os.close(pidfd)
