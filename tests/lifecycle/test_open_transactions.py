"""What a task leaves open in the database keeps nobody from going on."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group
from django.db import connection

from tests.lifecycle import open_tasks
from tests.workers import outcomes_of, run_worker, runs_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("per_child", [1, 0], ids=["own child", "same child"])
@pytest.mark.parametrize(
    ("task", "outcome"),
    [
        (open_tasks.leaves_what_it_began_by_hand, "raised"),
        (open_tasks.leaves_autocommit_off, "returned"),
        (open_tasks.leaves_a_block_open, "returned"),
    ],
    ids=["begin", "autocommit", "atomic"],
)
def test_transaction_that_a_task_leaves_open_is_rolled_back(
    task, outcome: str, per_child: int
) -> None:
    """On SQLite the child held the only lock, and waited for the worker, which waited for the lock."""
    leaving, next_one = task.enqueue(), open_tasks.commits.enqueue()

    run_worker("--batch", "--concurrency=1", f"--max-tasks-per-child={per_child}")

    assert outcomes_of(leaving) == [outcome]
    next_one.refresh()
    assert next_one.return_value == [False, True]
    assert set(Group.objects.values_list("name", flat=True)) == {"committed"}
    # MySQL does not say whether a transaction is open that Django does not know of.
    is_known = connection.vendor != "mysql" or outcome == "returned"
    says = "left a transaction open on the database 'default': it is rolled back."
    assert (says in runs_of(leaving)[0].output) is is_known
