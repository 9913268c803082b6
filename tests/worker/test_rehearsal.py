"""What a worker's template goes through before its first fork."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from dayfly.compat import TASKS_LOGGER_NAME, task_finished, task_started
from dayfly.conf import Settings
from dayfly.executor import child
from dayfly.models import Job, Run
from dayfly.worker import rehearsal
from dayfly.worker.launching import _rehearsal
from dayfly.worker.options import WorkerOptions

pytestmark = pytest.mark.django_db


def test_rehearsal_is_like_a_job_and_leaves_no_trace(
    caplog: pytest.LogCaptureFixture,
    django_assert_num_queries: Any,
) -> None:
    heard: list[str] = []

    def hear(**kwargs: Any) -> None:
        heard.append("something")

    call = _rehearsal(WorkerOptions(settings=Settings()))
    task_started.connect(hear)
    task_finished.connect(hear)
    try:
        with caplog.at_level(logging.DEBUG), django_assert_num_queries(0):
            value = rehearsal.perform(call.payload)
            for callback in child._callbacks:
                callback()
    finally:
        task_started.disconnect(hear)
        task_finished.disconnect(hear)
        child._callbacks.clear()

    assert call.target == "dayfly.worker.rehearsal.perform"
    assert value == b"null"
    assert heard == []
    assert not [one for one in caplog.records if one.name.startswith((TASKS_LOGGER_NAME, "dayfly"))]
    assert not Job.objects.exists()
    assert not Run.objects.exists()
