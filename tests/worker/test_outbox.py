"""What ended is written, whatever else cannot be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.db.utils import DataError

from dayfly.conf import Settings
from dayfly.executor import Call, Outcome
from dayfly.models import JobStatus
from dayfly.queue import Settlement
from dayfly.worker.clock import DatabaseClock
from dayfly.worker.ledger import Ledger, call_id_of
from dayfly.worker.options import WorkerOptions
from dayfly.worker.outbox import Outbox
from dayfly.worker.store import ConnectionBroke, DatabaseAway, RowsLocked
from tests.worker.conftest import MORNING, make_claim, make_report

WORKER = SimpleNamespace(id=UUID(int=99), name="me")


class FakeStore:
    """Takes settlements, unless the test objects to them."""

    def __init__(self) -> None:
        self.objection: Callable[[list[Settlement]], Exception | None] = lambda settlements: None
        self.written: dict[UUID, Settlement] = {}
        self.accepts = lambda settlements: {one.job_id for one in settlements}

    def call(
        self, verb: Any, *, may_be_refused: bool = False, may_be_locked: bool = False
    ) -> set[UUID]:
        assert isinstance(verb, partial)
        assert may_be_locked
        _, settlements = verb.args
        error = self.objection(settlements)
        if isinstance(error, DataError) and not may_be_refused:
            raise DatabaseAway
        if error is not None:
            raise error
        self.written |= {one.job_id: one for one in settlements}
        return self.accepts(settlements)


class FakeExecutor:
    """Remembers of which calls it was said that they are recorded."""

    waiting = 0

    def __init__(self) -> None:
        self.recorded: list[str] = []
        self.refused: list[str] = []
        self.submitted: list[Call] = []

    def say_recorded(self, *call_ids: str) -> None:
        self.recorded += call_ids

    def say_refused(self, *call_ids: str) -> None:
        self.refused += call_ids

    def submit(self, call: Call) -> None:
        self.submitted.append(call)


@pytest.fixture
def at_hand(clock_of: Callable[[str], Any]) -> SimpleNamespace:
    """An outbox, and what it works with."""
    clock_of("dayfly.worker.clock")
    clock = clock_of("dayfly.worker.outbox")
    store, ledger, executor = FakeStore(), Ledger(), FakeExecutor()
    outbox = Outbox(
        WorkerOptions(settings=Settings()),
        store=store,
        ledger=ledger,
        executor=executor,
        on_finished=lambda count: None,
    )

    def end(number: int, **report: Any) -> UUID:
        job_id = UUID(int=number)
        call_id = ledger.open(make_claim(job_id=job_id, due_at=MORNING + timedelta(seconds=1)))
        taken = outbox.take_report(
            make_report(**{"call_id": call_id, "output": b"\xe2\x98\x83", **report}),
            row=WORKER,
            clock=DatabaseClock(MORNING),
        )
        assert taken
        return job_id

    return SimpleNamespace(
        outbox=outbox, store=store, ledger=ledger, executor=executor, end=end,
        write=partial(outbox.write, WORKER.id), clock=clock,
    )  # fmt: skip


def broke_with(job_id: UUID, *, as_long_as: Callable[[Settlement], bool]) -> Any:
    def objection(settlements: list[Settlement]) -> Exception | None:
        has_it = any(one.job_id == job_id and as_long_as(one) for one in settlements)
        return ConnectionBroke("gone away") if has_it else None

    return objection


def refused_with(job_id: UUID, *, as_long_as: Callable[[Settlement], bool]) -> Any:
    def objection(settlements: list[Settlement]) -> Exception | None:
        has_it = any(one.job_id == job_id and as_long_as(one) for one in settlements)
        return DataError("too long") if has_it else None

    return objection


def has_output(settlement: Settlement) -> bool:
    assert settlement.run is not None
    return not settlement.run.output.startswith("(not recorded")


def has_result(settlement: Settlement) -> bool:
    return settlement.return_value is not None


def write_until_all_is_written(at_hand: SimpleNamespace) -> int:
    for tries in range(1, 50):
        try:
            at_hand.write()
        except DatabaseAway:
            continue
        return tries
    raise AssertionError("never")


def test_outcomes_are_written_together_and_children_hear_of_it(at_hand: SimpleNamespace) -> None:
    jobs = [at_hand.end(number) for number in (1, 2)]

    at_hand.write()

    assert list(at_hand.store.written) == jobs
    assert at_hand.executor.recorded == [call_id_of(job_id, 1) for job_id in jobs]
    assert at_hand.ledger.unwritten == []


def test_refused_outcome_loses_its_output_and_the_others_nothing(at_hand: SimpleNamespace) -> None:
    first, poison, last = (at_hand.end(number) for number in (1, 2, 3))
    at_hand.store.objection = refused_with(poison, as_long_as=has_output)

    at_hand.write()

    written = at_hand.store.written
    assert [has_output(written[each]) for each in (first, poison, last)] == [True, False, True]
    assert {one.status for one in written.values()} == {JobStatus.SUCCESSFUL}


def test_result_that_is_refused_without_output_too_fails_its_job(
    at_hand: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    poison, other = at_hand.end(1, value=b'"much"'), at_hand.end(2)
    at_hand.store.objection = refused_with(poison, as_long_as=has_result)

    at_hand.write()
    at_hand.outbox.tell()

    written = at_hand.store.written
    assert (written[poison].status, written[poison].return_value) == (JobStatus.FAILED, None)
    assert written[poison].run.outcome == "raised"
    assert written[poison].run.exception_class_path == "dayfly.exceptions.ResultRefused"
    assert "6 bytes of JSON, was refused by the database: too long. " in written[poison].run.message
    assert written[other].status == JobStatus.SUCCESSFUL
    assert "failed (raised): What shop.tasks.mail returned" in caplog.text
    # Its child would tell the world that it went well.
    assert at_hand.executor.recorded == [call_id_of(other, 1)]
    assert at_hand.executor.refused == [call_id_of(poison, 1)]
    (announcement,) = at_hand.executor.submitted
    assert announcement.payload.decode().endswith(f"\n{poison}")


def test_outcome_that_came_too_late_is_not_told_to_the_world(at_hand: SimpleNamespace) -> None:
    job_id = at_hand.end(1)
    at_hand.store.accepts = lambda settlements: set()

    at_hand.write()

    assert at_hand.executor.recorded == []
    assert at_hand.executor.refused == [call_id_of(job_id, 1)]
    assert at_hand.executor.submitted == []


def test_outcome_that_breaks_the_connection_again_and_again_is_cut(
    at_hand: SimpleNamespace,
) -> None:
    poison, other = at_hand.end(1), at_hand.end(2)
    at_hand.store.objection = broke_with(poison, as_long_as=has_output)

    tries = write_until_all_is_written(at_hand)

    assert 5 < tries < 15
    assert not has_output(at_hand.store.written[poison])
    assert has_output(at_hand.store.written[other])


def test_outcome_that_cannot_be_written_does_not_hold_up_the_others(
    at_hand: SimpleNamespace,
) -> None:
    poison, other = at_hand.end(1), at_hand.end(2)
    at_hand.store.objection = broke_with(poison, as_long_as=lambda settlement: True)

    for _ in range(40):
        with pytest.raises(DatabaseAway):
            at_hand.write()
    later = at_hand.end(3)
    with pytest.raises(DatabaseAway):
        at_hand.write()
    with pytest.raises(DatabaseAway):
        at_hand.write()

    assert list(at_hand.store.written) == [other, later]
    assert [entry.claim.job_id for entry in at_hand.ledger.unwritten] == [poison]


def locked(*job_ids: UUID) -> Any:
    def objection(settlements: list[Settlement]) -> Exception | None:
        is_held = any(one.job_id in job_ids for one in settlements)
        return RowsLocked("lock timeout") if is_held else None

    return objection


def test_outcome_whose_row_is_locked_waits_and_the_others_do_not(
    at_hand: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    first, held, last = (at_hand.end(number) for number in (1, 2, 3))
    at_hand.store.objection = locked(held)

    at_hand.write()
    at_hand.write()

    assert list(at_hand.store.written) == [first, last]
    later = at_hand.end(4)
    at_hand.write()
    assert list(at_hand.store.written) == [first, last, later]
    assert call_id_of(held, 1) not in at_hand.executor.recorded
    at_hand.clock.now += 6
    at_hand.write()  # locked still
    at_hand.store.objection = lambda settlements: None
    at_hand.clock.now += 6
    at_hand.write()
    assert at_hand.store.written[held].status == JobStatus.SUCCESSFUL
    assert has_output(at_hand.store.written[held])
    assert at_hand.ledger.unwritten == []
    assert caplog.text.count("waits: another session holds locks on its rows") == 1


def test_lock_is_waited_for_once_a_turn_and_outcome(at_hand: SimpleNamespace) -> None:
    """Each time takes a second, and meanwhile no heartbeat is sent."""
    jobs = [at_hand.end(number) for number in range(1, 11)]
    tries = []
    objection = locked(*jobs)
    at_hand.store.objection = lambda each: tries.append(len(each)) or objection(each)

    for _ in range(10):
        before = len(tries)
        at_hand.write()
        assert len(tries) - before <= 2
    assert tries == [10] + [1] * 10
    at_hand.write()

    assert len(tries) == 11
    assert len(at_hand.ledger.unwritten) == 10


def test_outage_cuts_nothing(at_hand: SimpleNamespace) -> None:
    """Read-only, full, away for long: the outcomes themselves are not to blame."""
    jobs = [at_hand.end(number) for number in (1, 2)]
    at_hand.store.objection = lambda settlements: DatabaseAway()
    for _ in range(40):
        with pytest.raises(DatabaseAway):
            at_hand.write()
    at_hand.store.objection = lambda settlements: None

    at_hand.write()

    assert [has_output(at_hand.store.written[each]) for each in jobs] == [True, True]


def test_job_goes_back_uncharged_when_its_child_died_before_it_began(
    at_hand: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    call_id = at_hand.ledger.open(make_claim(job_id=UUID(int=1)))
    report = make_report(
        call_id=call_id, outcome=Outcome.EXITED, message="Child 7 failed before it could run it.",
        value=None, started_ns=None, exit_code=71, output=b"Traceback\nNo module named 'x'\n",
    )  # fmt: skip

    was_run = at_hand.outbox.take_report(report, row=WORKER, clock=DatabaseClock(MORNING))
    at_hand.write()

    assert not was_run
    (settlement,) = at_hand.store.written.values()
    assert (settlement.status, settlement.charged, settlement.run) == (JobStatus.READY, False, None)
    assert at_hand.outbox.never_began == 1
    assert at_hand.outbox.finished == 0
    assert "The child's last words: No module named 'x'" in caplog.text


def test_stopped_child_does_not_hear_that_it_has_finished(at_hand: SimpleNamespace) -> None:
    at_hand.end(1, outcome=Outcome.STOPPED, value=None)

    at_hand.write()

    assert at_hand.executor.recorded == []
