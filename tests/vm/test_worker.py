"""A worker in a delegated cgroup: what its rows say. In the virtual machine of run.py only."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from dayfly.models import JobStatus
from tests.lifecycle import tasks
from tests.vm.services import Service
from tests.workers import job_of, running_worker, runs_of

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        os.environ.get("DAYFLY_TEST_KERNEL") != "1",
        reason="needs a kernel of its own: python3 tests/vm/run.py",
    ),
]


def test_task_that_the_kernel_killed_at_its_limit_is_over_memory(
    service: Callable[..., Service],
) -> None:
    place = service()
    over, well = tasks.holds_too_much.enqueue(), tasks.returns.enqueue("well")
    # Python starts enter.py, which starts Python again with what running_worker adds.
    command = [*place.starts[1:], sys.executable, "-m", "django", "runworker"]

    with running_worker(
        "--batch", options={"MEMORY_LIMIT_BYTES": 150_000_000}, command=command, is_ready=False
    ) as worker:
        assert worker.ends(within=120) == 0

    (run,) = runs_of(over)
    assert (run.outcome, run.exception_class_path) == (
        "over_memory",
        "dayfly.exceptions.OverMemory",
    )
    assert "the kernel killed it there" in run.message
    assert job_of(over).status == JobStatus.FAILED
    well.refresh()
    assert well.return_value == "well"
