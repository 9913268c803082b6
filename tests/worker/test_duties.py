"""What a worker owes the others."""

from __future__ import annotations

import pytest

from dayfly.compat import task_backends
from dayfly.conf import settings_for
from dayfly.worker.clock import DatabaseClock
from dayfly.worker.duties import Duties
from dayfly.worker.options import WorkerOptions
from tests.worker.conftest import MORNING


@pytest.fixture
def limits(settings: object) -> None:
    """Two backends with limits of their own, and one whose options are wrong."""
    backend = "dayfly.backend.DatabaseBackend"
    options = {"default": {"MAX_TIMES_LOST": 5}, "second": {"MAX_TIMES_LOST": 2}, "wrong": {"X": 1}}
    settings.TASKS = {  # type: ignore[attr-defined]
        alias: {"BACKEND": backend, "OPTIONS": each} for alias, each in options.items()
    }
    assert task_backends["second"]


@pytest.mark.parametrize(
    ("backend", "limit"), [("default", 5), ("second", 2), ("wrong", 5), ("nowhere", 5)]
)
def test_job_is_given_up_by_the_limit_of_its_own_backend(
    limits: None, backend: str, limit: int
) -> None:
    options = WorkerOptions(settings=settings_for("default"))

    assert Duties(options, DatabaseClock(MORNING))._max_times_lost(backend) == limit
