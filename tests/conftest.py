from __future__ import annotations

import logging
import signal

import pytest
from django.db import connections

from dayfly import queue
from dayfly.models import Worker

# A shell that starts something in the background has it ignore Ctrl-C, and nohup a hang-up. Python
# leaves it at that, and so would the workers that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for each in (signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(each) is signal.SIG_IGN:
        signal.signal(each, lambda number, frame: None)


@pytest.fixture(autouse=True)
def logs_are_heard(caplog: pytest.LogCaptureFixture) -> None:
    """Commands that ran in this process may have set the level of the logger."""
    caplog.set_level(logging.INFO, logger="dayfly")


@pytest.fixture
def job(db):
    """Add a job with whatever the test cares about."""

    def make(**changes):
        values = {
            "backend_name": "default",
            "queue_name": "default",
            "priority": 0,
            "task_path": "tests.tasks.add",
            "arguments": '{"args":[1],"kwargs":{}}',
            "run_after": None,
        }
        return queue.add(queue.NewJob(**(values | changes)), using="default")

    return make


@pytest.fixture
def worker(db):
    """Register a worker."""

    def make(name="one", lease_seconds=60):
        row = Worker(
            name=name,
            backend_name="default",
            queues="*",
            host="host",
            pid=4711,
            settings_module="tests.settings",
            concurrency=2,
        )
        queue.register(row, lease_seconds=lease_seconds, using="default")
        return row

    return make


@pytest.fixture
def vendor():
    return connections["default"].vendor
