"""
Parent side: the daemon's loop.

    poll children -> write outcomes -> keep the lease -> claim -> submit -> wait

One thread; nothing of the user's is imported or called here (but with launcher=inline, which is
for debugging). What is in memory is only what is under way: claims that run or wait, and outcomes
that are not written yet.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from django.db import connections

from dayfly import models, queue
from dayfly.executor import Executor, RunReport, titles
from dayfly.worker import announcer, ground, launching
from dayfly.worker.ahead import LookAhead
from dayfly.worker.announcer import logger
from dayfly.worker.clock import DatabaseClock
from dayfly.worker.dispatch import Dispatcher
from dayfly.worker.duties import Duties, new_row
from dayfly.worker.ledger import Ledger
from dayfly.worker.litter import Litter
from dayfly.worker.meanwhile import leave_alone, look_after_children
from dayfly.worker.options import WorkerOptions
from dayfly.worker.outbox import Outbox
from dayfly.worker.session import Session
from dayfly.worker.stop import StopRequests
from dayfly.worker.store import MAX_PAUSE_SECONDS, DatabaseAway, Store
from dayfly.worker.surroundings import Surroundings
from dayfly.worker.wakeup import for_database


class Worker:
    """
    Claims jobs and runs each in a child of its own, until it is asked to stop.

    `run` returns when the work is over; `stop.request()` asks for that from outside.
    """

    def __init__(
        self, options: WorkerOptions, *, on_finished: Callable[[int], None] | None = None
    ) -> None:
        """*on_finished* is told how many jobs have just ended, for progress bars."""
        self.options = options
        self.stop = StopRequests()
        #: Whether to start the program again: sources changed under --reload.
        self.wants_reload = False
        self._on_finished = on_finished or (lambda count: None)
        self._ledger = Ledger()
        self._litter = Litter()
        self._ahead = LookAhead(concurrency=options.concurrency, at_most=options.look_ahead)
        self._wakeup = for_database(
            options.using, interval=options.interval, notify=options.settings.notify
        )
        self._session = Session(options.using)
        self._store = Store(
            options.using,
            on_return=self._on_connection,
            on_reopen=self._on_reopening,
            max_pause_seconds=min(MAX_PAUSE_SECONDS, options.lease_seconds / 4),
        )
        self._claimed = 0
        self._is_drained = False
        self._must_adopt = False
        self._must_register = True
        self._interrupt: KeyboardInterrupt | None = None
        self._is_stopping = False
        self._is_hurrying = False
        self._row: models.Worker
        self._clock: DatabaseClock
        self._duties: Duties
        self._executor: Executor
        self._dispatcher: Dispatcher
        self._outbox: Outbox

    def run(self, *, handle_signals: bool = True) -> int:
        """
        Work until there is nothing left to do, or until asked to stop. Return how many jobs ended.

        With *handle_signals* TERM, INT, QUIT and HUP ask to stop, twice to hurry; only in the main thread.

        Raises:
            ground.CannotStart: the tables, the working directory or the connection are not in order.
            KeyboardInterrupt: Ctrl-C interrupted an inline task, and the host handles signals itself;
                the job is back in its queue.
        """
        is_inline = self.options.is_inline
        ground.prepare(self.options.using, is_inline=is_inline)
        ground.refuse_missing_tables(self.options.using)
        surroundings = Surroundings(self.options)
        directory = surroundings.directory
        self._store.connect_from = directory.visit
        self._executor = launching.make_executor(
            self.options, workdir=directory.path, before_fork=self._store.part_from_sqlite
        )
        self._dispatcher = Dispatcher(self.options, ledger=self._ledger, executor=self._executor)
        self._outbox = Outbox(
            self.options,
            store=self._store,
            ledger=self._ledger,
            executor=self._executor,
            on_finished=self._on_finished,
        )
        if is_inline:
            self.stop.runs_task = lambda: self._executor.running > 0
        if handle_signals:
            self.stop.listen()
        titles.show(f"dayfly: worker {self.options.name}", short="dayfly-worker")
        surroundings.settle()
        try:
            self._start()
            if self.options.forks:
                ground.warn_of_threads()
            announcer.starting(self.options)
            surroundings.begin()
            settings = self.options.settings
            self._executor.warm_up(huge_pages=settings.huge_pages, immortal=settings.immortal)
            while not self._is_over():
                self._turn()
                self._look_around(surroundings)
            self._retire()
        finally:
            self._outbox.tell()
            leave_alone(connections[self.options.using].connection)
            self._session.end()
            self._executor.close()
            self.stop.close()
            directory.come_back()
        if self._interrupt is not None:
            raise self._interrupt
        return self._outbox.finished

    # The loop ---------------------------------------------------------------

    def _turn(self) -> None:
        self._hear_children()
        left = 0.0 if self.stop.count else self._outbox.seconds_to_gather()
        if left:
            select.select([self._executor.fileno(), self.stop.fileno()], [], [], left)
            return
        began = time.monotonic()
        try:
            # The lease first: what cannot be written must not cost the worker its jobs.
            self._keep_lease()
            self._write_outcomes()
            self._store.call(self._look_after_others)
            submitted = not self._heed_stop() and self._claim()
        except DatabaseAway:
            submitted = False
        self._litter.throw_away(runs=self._outbox.finished)
        self._outbox.note_spoken(time.monotonic() - began)
        if submitted:
            self._hear_children()  # they start, and work while we tell of the last ones
        self._outbox.tell()
        if not submitted:
            self._wait()

    def _hear_children(self, timeout: float = 0) -> None:
        for report in self._poll(timeout):
            if self._outbox.take_report(report, row=self._row, clock=self._clock):
                self._ahead.note_finished(1)
        for child_exit in self._executor.take_exits():
            self._outbox.take_exit(child_exit)

    def _poll(self, timeout: float) -> list[RunReport]:
        try:
            return self._executor.poll(timeout)
        except KeyboardInterrupt as error:
            if not self.options.is_inline:
                raise
            if not self.stop.count:
                # Not by our handler: the host's, who gets it when all is recorded.
                self.stop.request()
                self._interrupt = error
            return [launching.stopped(report) for report in self._executor.poll(0)]

    def _write_outcomes(self) -> None:
        self._outbox.write(self._row.id)
        if self.options.batch and not self._ledger.open_claims:
            self._wakeup.hurry(time.monotonic())  # the last look may have been long ago

    def _keep_lease(self) -> None:
        if self._must_register:
            self._register()
        elif self._duties.is_beat_due(are_children_coming=self._executor.expects_children):
            self._executor.reap_orphans()
            is_alive = self._store.call(partial(self._duties.beat, self._row.id, self._executor))
            if not is_alive:
                self._start_over()

    def _look_after_others(self) -> None:
        self._duties.rescue_and_promote(on_promoted=partial(self._wakeup.found, anything=True))

    def _claim(self) -> bool:
        """Claim what there is room for; tell whether anything was submitted."""
        if self._must_adopt:
            self._adopt()
        limit = self._claims_wanted()
        if not limit or not self._store.call(self._wakeup.is_due):
            return False
        asked_ns = time.monotonic_ns()
        claims = self._store.call(
            partial(
                queue.claim,
                self._row.id,
                self.options.selection,
                limit=limit,
                using=self.options.using,
            )
        )
        self._is_drained = not claims and not self._must_wait_for_rescue()
        # A full answer means that there is more.
        self._wakeup.found(anything=len(claims) == limit)
        self._claimed += len(claims)
        if claims:
            self._clock.note(claims[0].claimed_at, asked_ns=asked_ns)
        for claim in claims:
            self._dispatcher.submit(claim)
        return bool(claims)

    def _must_wait_for_rescue(self) -> bool:
        """Tell whether a batch has jobs to come that a dead worker left: a heartbeat later they are given back."""
        return self.options.batch and self._store.call(
            partial(queue.has_stranded, using=self.options.using)
        )

    def _claims_wanted(self) -> int:
        """Return how many jobs to claim now, if there are as many."""
        limit = self._ahead.wanted(running=self._executor.running, waiting=self._executor.waiting)
        if self.options.max_tasks is not None:
            limit = min(limit, self.options.max_tasks - self._begun)
        return max(limit, 0)

    @property
    def _begun(self) -> int:
        """How many of the claims count as tasks run by this worker, or will."""
        return self._claimed - self._outbox.never_began

    def _wait(self) -> None:
        """Wait until a child, the database or a signal wants something."""
        # Of news that it would not act on, the worker does not want to hear: it would not take them
        # from the socket, which would then wake it again and again.
        wants_news = not self.stop.count and self._claims_wanted() > 0
        poll = select.poll()
        poll.register(self._executor.fileno(), select.POLLIN)
        poll.register(self.stop.fileno(), select.POLLIN)
        wakeup_fd = self._wakeup.fileno() if wants_news and not self._store.is_away else None
        if wakeup_fd is not None:
            poll.register(wakeup_fd, select.POLLIN)
        poll.poll(self._seconds_to_wait(wants_news=wants_news) * 1000)
        self.stop.drain()

    def _seconds_to_wait(self, *, wants_news: bool) -> float:
        moments = [self._duties.seconds_to_next(), 1.0]
        away = self._store.seconds_to_next_try()
        if away is not None:
            moments = [away, 1.0]
        elif wants_news:
            moments.append(self._wakeup.seconds_to_next())
        due = self._executor.seconds_to_next_event()
        if due is not None:
            moments.append(due)
        grace_left = self.stop.seconds_left(self.options.grace_seconds)
        if grace_left is not None and not self._is_hurrying:
            moments.append(grace_left)
        return min(moments)

    # Starting and stopping --------------------------------------------------

    def _start(self) -> None:
        """Register, or fail as whoever cannot reach a database does."""
        try:
            self._register()
        except DatabaseAway as error:
            raise error.__cause__ or error from None

    def _register(self) -> None:
        """
        Enter this worker's row; its id is what claims are held under.

        Raises:
            DatabaseAway: the next turn tries again; until then the row before is this worker's.
        """
        options = self.options
        row = new_row(options)
        register = partial(
            queue.register, row, lease_seconds=options.lease_seconds, using=options.using
        )
        was_away = self._store.is_away
        self._clock = DatabaseClock(self._store.call(register))
        self._row = row
        self._duties = Duties(options, self._clock)
        if was_away:
            self._duties.after_reconnect()
        titles.show(f"dayfly: worker {options.name} queues={row.queues}", short="dayfly-worker")
        self._must_register = self._must_adopt = False  # nothing is held in a new name

    def _on_reopening(self) -> None:
        self._session.begin()
        self._wakeup.connect()

    def _on_connection(self) -> None:
        """A new connection: listen again, and look for claims whose answer never arrived."""
        self._on_reopening()
        if not self.options.is_inline:  # what an inline task waits for is its own affair
            look_after_children(connections[self.options.using].connection, self._executor)
        self._wakeup.found(anything=True)
        self._must_adopt = True
        if self._store.is_away:  # until now
            self._duties.after_reconnect()

    def _adopt(self) -> None:
        for claim in self._store.call(partial(queue.held, self._row.id, using=self.options.using)):
            self._dispatcher.submit(claim)
        self._must_adopt = False

    def _start_over(self) -> None:
        """Another worker took this one for dead: its jobs are others' now. Begin anew."""
        self._executor.withdraw()
        self._executor.stop(grace_seconds=self.options.settings.kill_grace_seconds)
        count = self._ledger.forfeit()
        announcer.was_lost(self.options, jobs=count)
        self._must_register = True
        self._register()

    def _heed_stop(self) -> bool:
        """When asked to stop: claim no more, give back what waits, hurry when told to. True: stopping."""
        if not self.stop.count and not self._lost_patience():
            return False
        given_back = self._outbox.give_back(self._executor.withdraw())
        if given_back:
            self._claimed -= given_back
            self._write_outcomes()
        if not self.stop.count:
            return False
        if not self._is_stopping:
            self._is_stopping = True
            announcer.stopping(self.options, running=self._executor.running)
            self._executor.dismiss_standby()
        is_late = self.stop.seconds_left(self.options.grace_seconds) == 0
        if (self.stop.count > 1 or is_late) and not self._is_hurrying:
            self._is_hurrying = True
            announcer.hurrying(running=self._executor.running)
            self._executor.stop(grace_seconds=self.options.settings.kill_grace_seconds)
        return True

    def _lost_patience(self) -> bool:
        return self._ahead.lost_patience(
            waiting=self._executor.waiting, runs_started=self._executor.started
        )

    def _is_over(self) -> bool:
        if self._executor.has_work or self._ledger.unwritten or self._ledger.open_claims:
            # A third request does not wait for a database that stays away.
            return self.stop.count > 2 and not self._executor.running
        if self.stop.count:
            return True
        if self.options.max_tasks is not None and self._begun >= self.options.max_tasks:
            announcer.ran_maximum(self.options)
            return True
        if self.options.batch and self._is_drained:
            logger.info(
                "No more tasks to run for worker_id=%s - exiting gracefully.", self.options.name
            )
            return True
        return False

    def _retire(self) -> None:
        """Wait for the children to leave, write what their end told, and sign off."""
        self._executor.dismiss_standby()
        deadline = time.monotonic() + self._executor.terms.leave_seconds
        while not self._executor.is_empty and time.monotonic() < deadline:
            self._hear_children(timeout=0.1)
        with suppress(DatabaseAway):  # its row stays as that of a worker that fell silent
            self._write_outcomes()
            self._outbox.tell()
            if not self._ledger.unwritten:
                self._store.call(partial(queue.retire, self._row.id, using=self.options.using))
        if count := len(self._ledger.unwritten):
            announcer.leaving_unwritten(self.options, outcomes=count)
        announcer.stopped(self.options, self._outbox.finished)

    def _look_around(self, surroundings: Surroundings) -> None:
        changed = surroundings.follow(self._executor)
        if changed and not self.stop.count:
            logger.info("%s changed: the worker starts again.", changed)
            self.wants_reload = True
            self.stop.request()
