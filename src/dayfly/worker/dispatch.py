"""Parent side: a claim becomes a call. What the executor runs, under which limits, measured how."""

from __future__ import annotations

from dayfly.executor import Call, Executor, Limits
from dayfly.queue import Claim
from dayfly.worker.ledger import Ledger
from dayfly.worker.options import WorkerOptions
from dayfly.worker.order import Order
from dayfly.worker.sampling import Sampler

PERFORM = "dayfly.worker.perform.perform"
#: The same, where the worker runs tasks itself.
PERFORM_INLINE = "dayfly.worker.inline.perform"


class Dispatcher:
    """Hands claims to the executor."""

    def __init__(self, options: WorkerOptions, *, ledger: Ledger, executor: Executor) -> None:
        self._options = options
        self._ledger = ledger
        self._executor = executor
        self._target = PERFORM_INLINE if options.is_inline else PERFORM
        self._sampler = Sampler()
        settings = options.settings
        self._limits = Limits(
            timeout_seconds=settings.timeout_seconds,
            soft_timeout_seconds=settings.soft_timeout_seconds,
            grace_seconds=settings.kill_grace_seconds,
            memory_bytes=settings.memory_limit_bytes,
        )

    def submit(self, claim: Claim, *, memory_estimate_bytes: int = 0) -> bool:
        """
        Submit the call of *claim*; False when that was done already.

        *memory_estimate_bytes* is what it will hold, as far as is known, of MEMORY_BUDGET_BYTES.
        """
        call_id = self._ledger.open(claim)
        if call_id is None:
            return False
        self._executor.submit(
            Call(
                call_id=call_id,
                target=self._target,
                payload=self._order(claim).encode(claim.arguments),
                title=claim.task_path,
                limits=self._limits,
                memory_estimate_bytes=memory_estimate_bytes,
                memory_in_detail=self._wants_detail(),
            )
        )
        return True

    def _order(self, claim: Claim) -> Order:
        return Order(
            job_id=str(claim.job_id),
            task_path=claim.task_path,
            backend_name=self._options.backend_name,
            queue_name=claim.queue_name,
            priority=claim.priority,
            run_after=claim.run_after.isoformat() if claim.run_after else None,
            attempt=claim.attempt,
            enqueued_at=claim.enqueued_at.isoformat(),
            started_at=claim.started_at.isoformat(),
            last_attempted_at=claim.claimed_at.isoformat(),
            worker_name=self._options.name,
        )

    def _wants_detail(self) -> bool:
        detail = self._options.settings.memory_detail
        return self._sampler.picks_next() if detail == "auto" else detail == "full"
