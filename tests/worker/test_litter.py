"""What does not gather in a parent."""

from __future__ import annotations

import gc

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from dayfly.worker.litter import COLLECT_EVERY_RUNS, Litter


def ask() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@pytest.mark.django_db
def test_statements_are_not_kept_under_debug(settings: object) -> None:
    settings.DEBUG = True  # type: ignore[attr-defined]
    ask()
    assert connection.queries_log

    Litter().throw_away(runs=0)

    assert not connection.queries_log


@pytest.mark.django_db
def test_statements_that_somebody_counts_are_kept() -> None:
    with CaptureQueriesContext(connection) as queries:
        ask()
        Litter().throw_away(runs=0)

    assert len(queries) == 1


def test_garbage_is_collected_every_so_many_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    collections: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda: collections.append(1))
    litter = Litter()

    for runs in range(COLLECT_EVERY_RUNS * 2 + 1):
        litter.throw_away(runs=runs)

    assert len(collections) == 2
