"""What is under way: claims and outcomes."""

from __future__ import annotations

from dayfly.queue import RunExit
from dayfly.worker import record
from dayfly.worker.ledger import Entry, Ledger, call_id_of, claim_key
from tests.worker.conftest import JOB_ID, make_claim


def entry_of(claim: object) -> Entry:
    return Entry(settlement=record.give_back(claim), claim=claim, report=None)


def test_id_of_a_call_names_job_and_epoch() -> None:
    assert claim_key(call_id_of(JOB_ID, 7)) == (JOB_ID, 7)


def test_call_of_the_workers_own_names_no_claim() -> None:
    assert claim_key("0123456789abcdef") is None


def test_claim_is_open_until_its_outcome_is_known() -> None:
    ledger, claim = Ledger(), make_claim()

    call_id = ledger.open(claim)
    assert ledger.open_claims == 1
    assert ledger.close(call_id) is claim
    assert ledger.open_claims == 0
    assert ledger.close(call_id) is None


def test_claim_that_is_known_is_not_opened_twice() -> None:
    """Claims are looked up again on each new connection: most are running here already."""
    ledger = Ledger()

    assert ledger.open(make_claim()) is not None
    assert ledger.open(make_claim()) is None
    assert ledger.open_claims == 1


def test_claim_whose_outcome_is_not_written_yet_is_not_run_again() -> None:
    ledger, claim = Ledger(), make_claim()
    ledger.close(ledger.open(claim))
    ledger.write_later([entry_of(claim)])

    assert ledger.open(make_claim()) is None


def test_next_claim_of_the_same_job_is_another() -> None:
    ledger = Ledger()
    ledger.open(make_claim())

    assert ledger.open(make_claim(epoch=2)) == call_id_of(JOB_ID, 2)


def test_forfeit_forgets_everything() -> None:
    ledger = Ledger()
    ledger.open(make_claim())
    ledger.write_later([entry_of(make_claim(epoch=2))])
    ledger.exits.append(RunExit(job_id=JOB_ID, epoch=1, fields={}))

    assert ledger.forfeit() == 2
    assert (ledger.open_claims, ledger.unwritten, ledger.exits) == (0, [], [])
