"""Lean settings: the worker costs less, and tasks that need more say so."""

from __future__ import annotations

import pytest

from tests.lifecycle import tasks
from tests.lifecycle.model_tasks import counts_groups
from tests.workers import job_of, run_worker, runs_of

pytestmark = pytest.mark.django_db(transaction=True)

LEAN = "tests.lifecycle.lean_settings"


def test_worker_runs_on_lean_settings() -> None:
    result = tasks.returns.enqueue("well")

    log = run_worker("--batch", settings=LEAN)

    result.refresh()
    assert result.return_value == "well"
    assert "apps=1 settings=tests.lifecycle.lean_settings" in log


def test_start_up_log_shows_what_the_settings_cost() -> None:
    lean, full = run_worker("--batch", settings=LEAN), run_worker("--batch")

    assert modules_in(lean) < modules_in(full)


def modules_in(log: str) -> int:
    return int(log.partition(" modules=")[2].split()[0])


def test_task_that_needs_a_missing_app_says_which_settings_to_change() -> None:
    result = tasks.uses_the_database.enqueue()
    imported = counts_groups.enqueue()

    run_worker("--batch", settings=LEAN)

    for each in (result, imported):
        (run,) = runs_of(each)
        assert job_of(each).status == "FAILED"
        assert "INSTALLED_APPS" in run.message
        assert "The worker's settings leave out an app that this task needs" in run.traceback
        assert f"INSTALLED_APPS of {LEAN}" in run.traceback
