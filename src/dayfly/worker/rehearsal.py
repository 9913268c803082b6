"""
Child side: what a template goes through before its first fork, as if it performed jobs.

No row, no receiver of the project's and no log of it is touched: what runs is the machinery
around a task, Django's part of it too. See executor/rehearsal.py.
"""

from __future__ import annotations

import io
import logging
from typing import Any

from django.dispatch import Signal

from dayfly.compat import task_backends
from dayfly.worker.order import Order
from dayfly.worker.perform import Signals, run, running_result


def perform(payload: bytes) -> bytes:
    """Do with the job in *payload* what `perform` does, but with a task and signals of our own."""
    order, arguments = Order.decode(payload)
    backend: Any = task_backends[order.backend_name]
    task = backend.task_class(
        priority=order.priority,
        func=nothing,
        queue_name=min(backend.queues, default=order.queue_name),
        backend=order.backend_name,
        run_after=None,
    )
    return run(running_result(order, arguments, task, backend), backend, _signals())


def nothing() -> None:
    """Be a task that does nothing."""


def _signals() -> Signals:
    """Make signals that are heard as Django hears its own: by a line in a log."""
    logger = logging.Logger("rehearsal")  # noqa: LOG001 - one that is in nobody's tree
    logger.addHandler(logging.StreamHandler(io.StringIO()))

    def log(sender: type, task_result: Any, **kwargs: Any) -> None:
        logger.info("Task id=%s state=%s", task_result.id, task_result.status)

    signals = Signals(Signal(), Signal())
    for signal in signals:
        signal.connect(log, weak=False)
    return signals
