"""
Parent side: what is under way. Claims that wait or run, outcomes that are not written yet.

Bookkeeping only: no database, no process. It is empty when the worker is idle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from dayfly.executor.outcome import RunReport
from dayfly.queue import Claim, RunExit, Settlement


def call_id_of(job_id: UUID, epoch: int) -> str:
    """Name the call of one claim; `claim_key` reads it back."""
    return f"{job_id}.{epoch}"


def claim_key(call_id: str) -> tuple[UUID, int] | None:
    """Read job and epoch from the id of a call; None for calls of the worker's own."""
    job_id, _, epoch = call_id.partition(".")
    return (UUID(job_id), int(epoch)) if epoch else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An outcome on its way into the database. *report* is None for a claim given back unstarted."""

    settlement: Settlement
    claim: Claim
    report: RunReport | None
    #: How often something was left out of the settlement, as the database refused it.
    cuts: int = 0
    #: Whether the job failed over that, though its child reported that it returned.
    is_overruled: bool = False
    #: How often the connection broke while it was written alone.
    breaks: int = 0
    #: When to try again what somebody else held locked (time.monotonic()); 0: nobody did.
    locked_until: float = 0.0


class Ledger:
    """Knows every claim of this worker from the moment it was claimed until its outcome is written."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}
        self.unwritten: list[Entry] = []
        self.exits: list[RunExit] = []

    def open(self, claim: Claim) -> str | None:
        """Enter a new claim; return the id for its call, or None if it is known already."""
        call_id = call_id_of(claim.job_id, claim.epoch)
        known = call_id in self._claims or any(
            entry.claim.job_id == claim.job_id and entry.claim.epoch == claim.epoch
            for entry in self.unwritten
        )
        if known:
            return None
        self._claims[call_id] = claim
        return call_id

    def close(self, call_id: str) -> Claim | None:
        """Take the claim whose outcome is known now; None for a call of the worker's own."""
        return self._claims.pop(call_id, None)

    def write_later(self, entries: Iterable[Entry]) -> None:
        """Keep outcomes until they are written."""
        self.unwritten.extend(entries)

    def forfeit(self) -> int:
        """Forget everything: other workers have the jobs now. Return how many there were."""
        count = len(self._claims) + len(self.unwritten)
        self._claims.clear()
        self.unwritten.clear()
        self.exits.clear()
        return count

    @property
    def open_claims(self) -> int:
        """How many claims wait or run."""
        return len(self._claims)
