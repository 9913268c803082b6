"""The parent stays as it is, however much its children leak."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import transaction

from dayfly.models import Job, Run
from tests.helpers import children_of, eventually, open_fds
from tests.lifecycle import tasks
from tests.workers import running_worker

pytestmark = pytest.mark.django_db(transaction=True)

#: The first runs are warm-up: drivers and Django fill their caches. 2,000 fill CPython's free lists, too.
WARM_UP, MEASURED = 200, 2_000
MAX_GROWTH_BYTES = 250_000


def anon_bytes(pid: int) -> int:
    """Return RssAnon of proc(5)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def run_many(count: int) -> None:
    with transaction.atomic():
        for _ in range(count):
            tasks.hoards.enqueue(1)
    eventually(lambda: not Job.objects.filter(status__in=["READY", "RUNNING"]).exists(), within=100)


@pytest.mark.timeout(240)
def test_parent_does_not_grow_with_the_number_of_runs() -> None:
    with running_worker("--concurrency=2", "-v0", is_ready=False) as worker:
        run_many(WARM_UP)
        before, descriptors = anon_bytes(worker.pid), len(open_fds(worker.pid))

        run_many(MEASURED)
        after = anon_bytes(worker.pid)
        eventually(lambda: len(children_of(worker.pid)) <= 2)
        eventually(lambda: len(open_fds(worker.pid)) <= descriptors, what="as few descriptors")

    assert Run.objects.filter(outcome="returned").count() == WARM_UP + MEASURED
    assert after - before < MAX_GROWTH_BYTES
