"""
Parent side: templates, processes from which children are forked.

One at a time serves. It is started when a child is wanted, and may be told to rest; when the
project has changed, a new one is loaded while the old one serves, which then lives on
until its last child is dead. A template that dies loses nothing: this process is a subreaper, so
the kernel gives it the children, whose sockets it has had all along.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import time
from functools import partial
from typing import NoReturn

from dayfly.executor import foundlings, hugepages, interpreters, workdir
from dayfly.executor import template as template_side
from dayfly.executor.fork import fork
from dayfly.executor.launchers import (
    Birth,
    Death,
    Host,
    NoTemplate,
    OnBirth,
    OnDeath,
    wait_for,
)
from dayfly.executor.lines import open_control
from dayfly.executor.source import Source
from dayfly.executor.subreaper import subreaper
from dayfly.executor.template_link import ANSWER_SECONDS, Answer, OnAnswer, Template
from dayfly.executor.terms import Terms
from dayfly.executor.tidy import StandardStreams
from dayfly.executor.wear import Wear

logger = logging.getLogger("dayfly.executor")


class FromTemplate:
    """Forks children from a template: a copy of this process, or an interpreter that loads *source*."""

    def __init__(
        self,
        terms: Terms,
        workdir_known: tuple[int, int] | None,
        host: Host,
        source: Source | None = None,
    ) -> None:
        """
        Start nothing yet.

        Raises:
            CannotStart: *terms* or *source* cannot be told to another process.
        """
        self._terms = terms
        self._workdir_known = workdir_known
        self._host = host
        self._source = source
        self._is_refused = False
        self._wear = Wear(source)
        if source is not None:
            interpreters.write_order(source, terms, workdir_known)
        self._streams = StandardStreams()
        self._has_huge_pages = False
        self._serving: Template | None = None
        self._coming: Template | None = None
        self._retired: list[Template] = []

    def spawn(self, channel: socket.socket, output_fd: int, on_birth: OnBirth) -> None:
        """Have the template fork a child; see Launcher."""
        template = self._serving
        if template is None:
            try:
                template = self._serving = self._start()
            except OSError as error:
                on_birth(Birth(error=error))
                return
        self._wear.note_use()
        fds = [channel.fileno(), output_fd]
        on_answer = partial(self._born, template, foundlings.line_of(channel), on_birth)
        self._ask(template, {"do": "spawn"}, fds, on_answer)

    def reap(self, pid: int, on_death: OnDeath) -> None:
        """Have the template wait for *pid*; see Launcher."""
        for template in self._templates():
            if pid in template.children and not template.is_gone:
                on_answer = partial(self._dead, template, pid, on_death)
                self._ask(template, {"do": "reap", "pid": pid}, [], on_answer)
                return
        on_death(wait_for(pid))  # its template is dead: it is ours now

    def pids(self) -> list[int]:
        """Return the templates."""
        return [template.pid for template in self._templates()]

    def keep_time(self, now: float) -> None:
        """Give up a template that hangs; replace one that is worn."""
        for template in self._templates():
            overdue = template.deadline
            if overdue is None or overdue > now:
                continue
            # Where the machine stood still, or the parent, the answer is here already.
            self._hear(template)
            if template.deadline == overdue:
                why = "it does not answer" if template.is_ready else "it takes too long to load"
                logger.warning("The template %d is killed: %s.", template.pid, why)
                self._forget(template)
        self._replace_if_worn(now)

    def next_event(self) -> float | None:
        """Return when an answer is overdue."""
        deadlines = [t.deadline for t in self._templates() if t.deadline is not None]
        return min(deadlines, default=None)

    def use_huge_pages(self) -> None:
        """
        Collapse our heap, and have copies of this process do the same; *source* says it of other templates.

        A copy shares what it does not write to, and collapses anew what it has written to when it is ready.
        """
        if self._source is None:
            hugepages.collapse_heap()
        self._has_huge_pages = True

    def renew(self) -> None:
        """Load a new template; it takes over when it is ready. Copies stay: the parent has not changed."""
        self._is_refused = False
        if self._source is None or self._serving is None:
            return
        self._load_next()

    def rest(self) -> None:
        """Retire the template; it leaves with its last child."""
        self._drop_coming()
        if self._serving is not None:
            self._retire(self._serving)
            self._serving = None

    def close(self) -> None:
        """End the templates, each of which ends its children."""
        for template in self._templates():
            template.is_unwanted = True
            template.end()
        self._serving = self._coming = None
        self._retired.clear()
        subreaper.release(id(self))

    def _templates(self) -> list[Template]:
        living = (self._serving, self._coming, *self._retired)
        return [template for template in living if template is not None]

    def _replace_if_worn(self, now: float) -> None:
        template = self._serving
        if template is None or not template.is_ready or self._coming or self._is_refused:
            return
        why = self._wear.reason(template.pid, now)
        if why:
            logger.info("The template %d is replaced by a new one: %s.", template.pid, why)
            self._load_next()

    def _load_next(self) -> None:
        self._drop_coming()
        try:
            self._coming = self._start()
        except OSError as error:
            logger.warning("No new template was started: %s.", error.strerror)
            self._wear.note_failure(time.monotonic())

    def _start(self) -> Template:
        for hook in self._terms.before_fork:
            hook()
        subreaper.hold(id(self))
        ours, theirs = open_control()
        try:
            if self._source is None or self._is_refused:
                pid, seconds = (
                    fork(partial(self._live_as_copy, theirs, os.getpid())),
                    ANSWER_SECONDS,
                )
            else:
                pid, seconds = self._execute(self._source, theirs), self._source.start_seconds
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        template = Template(pid, ours, start_seconds=seconds, unwatch=self._host.unwatch_fd)
        template.expect(partial(self._ready, template))
        self._host.watch_fd(ours.fileno(), partial(self._hear, template))
        return template

    def _execute(self, source: Source, control: socket.socket) -> int:
        directory = self._terms.workdir
        known = None if directory is None else workdir.identity(directory)
        order = interpreters.write_order(source, self._terms, known)
        return interpreters.start("template", order, [control.fileno()], dict(source.environment))

    def _live_as_copy(self, control: socket.socket, parent_pid: int) -> NoReturn:
        template_side.live_as_copy(
            control,
            self._streams,
            self._terms,
            parent_pid=parent_pid,
            workdir_known=self._workdir_known,
            huge_pages=self._has_huge_pages,
        )

    def _ask(
        self, template: Template, question: Answer, fds: list[int], on_answer: OnAnswer
    ) -> None:
        template.ask(question, fds, on_answer)
        if template.is_gone:
            self._lost(template)

    def _hear(self, template: Template) -> None:
        template.hear()
        if template.is_gone:
            self._lost(template)
        elif template.is_done:
            self._let_go(template)

    def _lost(self, template: Template) -> None:
        """Do without a template that died: it was heard, or not to be spoken to any more."""
        if template in (self._serving, self._coming) and template.is_ready:
            logger.warning(
                "The template %d died, or was killed. Its children go on, and another one is loaded.",
                template.pid,
            )
        self._drop(template)

    def _ready(self, template: Template, answer: Answer | None) -> None:
        if answer is None:
            self._failed(template, "it died, or was killed, while it was loaded")
        elif "refused" in answer:
            self._failed(template, answer["refused"])
            self._forget(template)
        else:
            template.is_ready = True
            if "skipped" in answer:
                seconds = time.monotonic() - template.began
                logger.info("The template %d is ready after %.1f s.", template.pid, seconds)
                self._wear.begin(template.pid, load_seconds=seconds)
            if answer.get("skipped"):
                logger.warning(
                    "The template leaves out what could not be loaded: %s. Children try it again"
                    " when they need it.",
                    answer["skipped"],
                )
            if template is self._coming:
                self._take_over(template)

    def _take_over(self, template: Template) -> None:
        old, self._serving, self._coming = self._serving, template, None
        self._host.outdate_children()
        if old is not None:
            old.is_outdated = True
            self._retire(old)

    def _failed(self, template: Template, why: str) -> None:
        if template.is_unwanted:
            return
        if template is self._coming:
            logger.warning("The new template was not taken: %s. The old one goes on.", why)
            self._wear.note_failure(time.monotonic())
        elif self._source is None or self._is_refused:
            logger.warning("No template: %s.", why)
        elif self._source.falls_back:
            logger.warning(
                "No template: %s. Children are forked from a copy of this process instead, and"
                " load what they need themselves.",
                why,
            )
            self._is_refused = True
        else:
            logger.warning(
                "No template: %s. Nothing is run until there is one, which is tried again: mend"
                " this, or choose another launcher (spawn forks nothing).",
                why,
            )

    def _born(
        self, template: Template, line: str, on_birth: OnBirth, answer: Answer | None
    ) -> None:
        if answer is None:
            # It may have been forked all the same: then it is ours now, as good as any other.
            pid = foundlings.find(line)
            if pid is not None:
                on_birth(Birth(pid, is_outdated=template.is_outdated))
            else:
                on_birth(Birth(error=NoTemplate("there is no template to fork it from")))
                foundlings.reap_dead(template.pid)
        elif "errno" in answer:
            on_birth(Birth(error=OSError(answer["errno"], os.strerror(answer["errno"]))))
        else:
            template.children.add(answer["pid"])
            on_birth(Birth(answer["pid"], answer["fork_seconds"], is_outdated=template.is_outdated))

    def _dead(self, template: Template, pid: int, on_death: OnDeath, answer: Answer | None) -> None:
        template.children.discard(pid)
        if answer is None:
            on_death(wait_for(pid))
        elif answer["status"] is None:
            on_death(Death())
        else:
            on_death(Death(answer["status"], resource.struct_rusage(answer["rusage"])))

    def _retire(self, template: Template) -> None:
        template.is_retired = True
        if template.is_done:
            self._let_go(template)
        else:
            self._retired.append(template)

    def _let_go(self, template: Template) -> None:
        template.end()
        self._drop(template)

    def _forget(self, template: Template) -> None:
        template.give_up()
        self._drop(template)

    def _drop_coming(self) -> None:
        if self._coming is not None:
            self._coming.is_unwanted = True
            self._forget(self._coming)

    def _drop(self, template: Template) -> None:
        if template is self._serving:
            self._serving = None
        if template is self._coming:
            self._coming = None
        if template in self._retired:
            self._retired.remove(template)
