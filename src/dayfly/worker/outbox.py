"""
Parent side: what ended is written here, and the children hear that it was.

    report -> settlement -> one transaction for all of a turn -> RECORDED to each child

What cannot be written now waits in the ledger, and the others go before it; what a row's
own content keeps from being written is written without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from uuid import UUID

from django.db.utils import Error

from dayfly import models, queue
from dayfly.executor import Call, ChildExit, Executor, Outcome, RunReport
from dayfly.queue import RunExit
from dayfly.worker import announcer, record
from dayfly.worker.announcer import logger
from dayfly.worker.clock import DatabaseClock
from dayfly.worker.ledger import Entry, Ledger, claim_key
from dayfly.worker.options import WorkerOptions
from dayfly.worker.store import ConnectionBroke, DatabaseAway, RowsLocked, Store

ANNOUNCE = "dayfly.worker.perform.announce"
#: How long outcomes gather at least while the worker is busy; as long as the last words with the
#: database took, if that was longer. Nothing starts while it is spoken to: with every outcome
#: written at once, a commit of 10 ms made 100 jobs a second the most that two children could do.
GATHER_SECONDS = 0.02
MAX_GATHER_SECONDS = 0.2
#: So often may the connection break under one outcome before that is cut: a packet that is too
#: large for MySQL, a text that has the server's memory run out.
MAX_BREAKS = 5
#: How long an outcome waits whose rows somebody else holds locked, before it is tried again.
LOCKED_SECONDS = 5.0
#: How many joined children a busy worker notes together.
EXITS_AT_ONCE = 50


class Outbox:
    """Turns reports into rows, and rows into leave for the children to go on."""

    def __init__(
        self,
        options: WorkerOptions,
        *,
        store: Store,
        ledger: Ledger,
        executor: Executor,
        on_finished: Callable[[int], None],
    ) -> None:
        #: Jobs whose outcome was written.
        self.finished = 0
        #: Claims that went back, as their children died before they could begin.
        self.never_began = 0
        self._options = options
        self._store = store
        self._ledger = ledger
        self._executor = executor
        self._on_finished = on_finished
        self._gather_until = 0.0
        #: Whether one of the outcomes may be what keeps all of them from being written.
        self._is_wary = False
        #: Calls whose children died before their outcome was written.
        self._unheard: set[str] = set()
        #: What was written, and is not in the log yet.
        self._untold: list[Entry] = []

    def take_report(self, report: RunReport, *, row: models.Worker, clock: DatabaseClock) -> bool:
        """Keep the outcome of a run until it is written; False where there was no run of a task."""
        claim = self._ledger.close(report.call_id)
        if claim is None:
            if report.outcome is not Outcome.RETURNED and claim_key(report.call_id) is None:
                logger.warning("task_finished was not sent: %s", announcer.one_line(report.message))
            return False
        if report.never_began and report.outcome is not Outcome.STOPPED:
            # No fault of the task's: the same worker would fail them all, one after the other.
            announcer.never_began(claim, report)
            self.never_began += 1
            self._ledger.write_later(
                [Entry(settlement=record.give_back(claim), claim=claim, report=None)]
            )
            return False
        settlement = record.settle(claim, report, worker=row, clock=clock)
        self._ledger.write_later([Entry(settlement=settlement, claim=claim, report=report)])
        return True

    def take_exit(self, child_exit: ChildExit) -> None:
        """Keep what was learnt when a child was joined, and do what it did not live to do."""
        key = claim_key(child_exit.call_id)
        if key is None:
            return
        job_id, epoch = key
        learnt = {"parent_rss_after_join_bytes": child_exit.parent_rss_after_join_bytes}
        self._ledger.exits.append(RunExit(job_id=job_id, epoch=epoch, fields=learnt))
        if child_exit.signal is not None:
            logger.warning(
                "Child %d was ended by signal %d after its task id=%s was done",
                child_exit.child_pid,
                child_exit.signal,
                job_id,
            )
        if not child_exit.was_recorded:
            if any(entry.claim.job_id == job_id for entry in self._ledger.unwritten):
                self._unheard.add(child_exit.call_id)  # the world hears of it once it is written
            else:
                self._announce(job_id)

    def seconds_to_gather(self) -> float:
        """
        Return how long outcomes may gather still, while jobs wait for a slot; then 0.

        The database is spoken to once for several of them, and children start meanwhile.
        """
        if not self._executor.waiting:
            return 0.0
        return max(self._gather_until - time.monotonic(), 0.0)

    def note_spoken(self, seconds: float) -> None:
        """Note that the database was just spoken to for *seconds*."""
        pause = min(max(GATHER_SECONDS, seconds), MAX_GATHER_SECONDS)
        self._gather_until = time.monotonic() + pause

    def give_back(self, calls: Iterable[Call]) -> int:
        """Return to the queue what no child got; return how many jobs that were."""
        entries = []
        for call in calls:
            claim = self._ledger.close(call.call_id)
            if claim is None:
                self._executor.submit(call)  # our own: task_finished is still to be sent
            else:
                entries.append(Entry(settlement=record.give_back(claim), claim=claim, report=None))
        self._ledger.write_later(entries)
        return len(entries)

    def write(self, worker_id: UUID) -> None:
        """
        Write what ended, in one transaction; then let the children go on.

        Raises:
            DatabaseAway: nothing is lost, and the next call tries again.
        """
        if not self._is_wary:
            self._write_together(worker_id)
        while entry := self._next_alone():
            if not self._write_alone(worker_id, entry):
                return  # each costs the time that locks are waited for, and the lease must be kept
        self._is_wary = False
        exits = self._ledger.exits
        if exits and (len(exits) >= EXITS_AT_ONCE or not self._executor.waiting):
            note = partial(queue.note_exits, exits, using=self._options.using)
            with suppress(RowsLocked):  # they wait for the next turn
                self._store.call(note, may_be_locked=True)
                self._ledger.exits = []

    def tell(self) -> None:
        """
        Put into the log what was written; where children have work, they do it meanwhile.

        A line for each of fifty tasks takes as long as five of those tasks.
        """
        told, self._untold = self._untold, []
        for entry in told:
            if entry.report is not None:
                announcer.finished(entry.claim, entry.report, show_output=self._options.show_output)

    def _write_together(self, worker_id: UUID) -> None:
        """Write all outcomes but those that met a lock before."""
        entries = [entry for entry in self._ledger.unwritten if not entry.locked_until]
        if not entries:
            return
        try:
            accepted = self._finish(worker_id, entries)
        except (Error, RowsLocked):
            self._is_wary = True  # it is one of them: the others must not suffer for it
        except ConnectionBroke:
            self._is_wary = True
            raise
        else:
            self._ledger.unwritten = [e for e in self._ledger.unwritten if e.locked_until]
            self._note_written(entries, accepted)

    def _next_alone(self) -> Entry | None:
        """Return the first outcome that may be tried now, if there is one."""
        now = time.monotonic()
        return next((e for e in self._ledger.unwritten if e.locked_until <= now), None)

    def _write_alone(self, worker_id: UUID, entry: Entry) -> bool:
        """
        Write one outcome; what keeps it from being written is left out, the output first.

        False: somebody else holds its rows locked.
        """
        unwritten = self._ledger.unwritten
        place = next(number for number, each in enumerate(unwritten) if each is entry)
        try:
            accepted = self._finish(worker_id, [entry])
        except RowsLocked as error:
            if not entry.locked_until:
                announcer.is_locked(entry.claim, str(error))
            del unwritten[place]
            unwritten.append(replace(entry, locked_until=time.monotonic() + LOCKED_SECONDS))
            return False
        except Error as error:
            logger.warning("The database refused a row: %s", announcer.one_line(str(error)))
            unwritten[place] = _cut(entry, error)
        except DatabaseAway as error:
            if isinstance(error, ConnectionBroke):
                entry = replace(entry, breaks=entry.breaks + 1)
                if entry.breaks > MAX_BREAKS and not _is_bare(entry):
                    entry = _cut(entry, error)
            del unwritten[place]
            unwritten.append(entry)  # the others come first now
            raise
        else:
            del unwritten[place]
            self._note_written([entry], accepted)
        return True

    def _finish(self, worker_id: UUID, entries: Sequence[Entry]) -> set[UUID]:
        settlements = [entry.settlement for entry in entries]
        return self._store.call(
            partial(queue.finish, worker_id, settlements, using=self._options.using),
            may_be_refused=not all(_is_bare(entry) for entry in entries),
            may_be_locked=True,
        )

    def _note_written(self, entries: Sequence[Entry], accepted: Collection[UUID]) -> None:
        self._let_go_on(entries, accepted)
        for entry in entries:
            self._close(entry, accepted=entry.claim.job_id in accepted)

    def _let_go_on(self, entries: Iterable[Entry], accepted: Collection[UUID]) -> None:
        """
        Tell the children what is recorded, and whether as they reported it.

        One that was stopped has not finished, whatever waits to say so.
        """
        recorded: list[str] = []
        refused: list[str] = []
        for entry in entries:
            if entry.report is not None and entry.report.outcome is not Outcome.STOPPED:
                stands = entry.claim.job_id in accepted and not entry.is_overruled
                (recorded if stands else refused).append(entry.report.call_id)
        self._executor.say_recorded(*recorded)
        if refused:
            self._executor.say_refused(*refused)

    def _close(self, entry: Entry, *, accepted: bool) -> None:
        report = entry.report
        if report is None:
            return
        is_unheard = report.call_id in self._unheard
        self._unheard.discard(report.call_id)
        if not accepted:
            logger.warning(
                "The outcome of task %s id=%s was refused: another worker has the job since, or it was deleted",
                entry.claim.task_path,
                entry.claim.job_id,
            )
            return
        self._untold.append(entry)
        if report.outcome is Outcome.STOPPED:
            return
        self.finished += 1
        self._on_finished(1)
        if is_unheard or entry.is_overruled or not report.was_sent:  # its child cannot do it
            self._announce(entry.claim.job_id)

    def _announce(self, job_id: object) -> None:
        """Have task_finished sent by a short-lived child, for one that can no longer do it."""
        payload = f"{self._options.backend_name}\n{job_id}".encode()
        self._executor.submit(
            Call(target=ANNOUNCE, payload=payload, title="task_finished", memory_in_detail=False)
        )


def _cut(entry: Entry, error: Exception) -> Entry:
    """Leave out of an outcome what the database does not take: its output, then its result."""
    report = entry.report
    if not entry.cuts:
        settlement = record.plain(entry.settlement)
    else:
        settlement = record.bare(entry.settlement, announcer.one_line(str(error)).rstrip("."))
        if report and settlement.run and settlement is not entry.settlement:
            report = replace(report, outcome=Outcome.RAISED, message=settlement.run.message)
            entry = replace(entry, is_overruled=True)
    return replace(entry, settlement=settlement, report=report, cuts=entry.cuts + 1, breaks=0)


def _is_bare(entry: Entry) -> bool:
    return entry.cuts > 1
