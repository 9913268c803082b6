"""Parent side: what a worker owes the others: its row, its heartbeat, rescue of the silent, promotion of the due."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from uuid import UUID

from django.utils import timezone

from dayfly import models, queue
from dayfly.compat import InvalidTaskBackend
from dayfly.conf import OptionError, settings_for
from dayfly.executor import memory
from dayfly.executor.executor import Executor
from dayfly.worker import announcer
from dayfly.worker.clock import DatabaseClock
from dayfly.worker.options import WorkerOptions

PROMOTE_SECONDS = 1.0
#: How long the first heartbeat may wait for children, which come while the worker goes on.
FIRST_BEAT_SECONDS = 3.0
FIRST_BEAT_PAUSE_SECONDS = 0.05


class Duties:
    """Timers of the loop. Each duty is a verb of the queue."""

    def __init__(self, options: WorkerOptions, clock: DatabaseClock) -> None:
        self._options = options
        self._clock = clock
        self._beat_seconds = options.settings.lease_seconds / 4
        now = time.monotonic()
        # At once, as the row has no figures yet; when the children are there that it tells of: the
        # lease was taken just now, and holds for longer than that.
        self._next_beat = now
        self._first_beat_by = now + min(FIRST_BEAT_SECONDS, self._beat_seconds)
        # Others get the time of a heartbeat to show that they live, also after an outage.
        self._next_rescue = now + self._beat_seconds
        self._next_promotion = now

    def after_reconnect(self) -> None:
        """Beat at once; rescue nobody before each worker had a whole lease to come back, too."""
        now = time.monotonic()
        self._next_beat = now
        self._next_rescue = now + self._options.settings.lease_seconds

    def is_beat_due(self, *, are_children_coming: bool = False) -> bool:
        """Tell whether the heartbeat is due. The first waits a little for the children that it tells of."""
        now = time.monotonic()
        if now < self._next_beat:
            return False
        if are_children_coming and now < self._first_beat_by:
            self._next_beat = now + FIRST_BEAT_PAUSE_SECONDS
            return False
        return True

    def beat(self, worker_id: UUID, executor: Executor) -> bool:
        """Renew the lease. False: another worker has declared this one lost."""
        figures = measure(executor)
        asked_ns = time.monotonic_ns()
        now = queue.heartbeat(
            worker_id,
            figures,
            lease_seconds=self._options.lease_seconds,
            using=self._options.using,
        )
        self._first_beat_by = 0.0
        self._next_beat = time.monotonic() + self._beat_seconds
        if now is None:
            return False
        self._clock.note(now, asked_ns=asked_ns)
        announcer.heartbeat(self._options.name, figures)
        return True

    def rescue_and_promote(self, *, on_promoted: Callable[[], None]) -> None:
        """Give back the jobs of silent workers; make due jobs ready."""
        now = time.monotonic()
        if now >= self._next_rescue:
            self._next_rescue = now + self._beat_seconds
            for job in queue.rescue(max_times_lost=self._max_times_lost, using=self._options.using):
                announcer.rescued(job)
                on_promoted()
        if now >= self._next_promotion:
            # Also if it fails: claims do not wait for it.
            self._next_promotion = now + PROMOTE_SECONDS
            if queue.promote(using=self._options.using):
                on_promoted()
            due = queue.next_due_seconds(using=self._options.using)
            pause = PROMOTE_SECONDS if due is None else min(max(due, 0.0), PROMOTE_SECONDS)
            self._next_promotion = time.monotonic() + pause

    def _max_times_lost(self, backend_name: str) -> int:
        """Return the limit of a backend, which may be another than this worker's; if it is unknown here, ours."""
        try:
            return settings_for(backend_name).max_times_lost
        except (OptionError, InvalidTaskBackend):  # lean settings may name our own backend only
            return self._options.settings.max_times_lost

    def seconds_to_next(self) -> float:
        """Return how long until something is due."""
        moment = min(self._next_beat, self._next_rescue, self._next_promotion)
        return max(moment - time.monotonic(), 0.0)


def new_row(options: WorkerOptions) -> models.Worker:
    """Make the row by which the others know this worker. Its moments are replaced by the database's."""
    now = timezone.now()
    return models.Worker(
        name=options.name,
        backend_name=options.backend_name,
        queues=_to_show(options.queues),
        host=socket.gethostname(),
        pid=os.getpid(),
        settings_module=os.environ.get("DJANGO_SETTINGS_MODULE", ""),
        concurrency=options.concurrency,
        started_at=now,
        heartbeat_at=now,
        lease_expires_at=now,
    )


def _to_show(queues: tuple[str, ...] | None) -> str:
    """Name the queues, for people: what has no place in the column is left out."""
    text = "*" if queues is None else ",".join(queues)
    most = models.Worker._meta.get_field("queues").max_length or len(text)
    return text if len(text) <= most else text[: most - 3] + "..."


def measure(executor: Executor) -> dict[str, int | None]:
    """Read what the parent holds, and its children: the sum of PSS counts shared pages once."""
    reading = memory.quick()
    children = [memory.thorough(pid) for pid in executor.all_pids]
    known = [child.pss_bytes for child in children if child and child.pss_bytes is not None]
    return {
        "rss_bytes": reading.rss_bytes if reading else None,
        "anon_bytes": reading.anon_bytes if reading else None,
        "vms_bytes": memory.virtual_bytes(),
        "children": len(executor.child_pids),
        "children_pss_bytes": sum(known) if known or not children else None,
    }
