"""
The ceiling: nothing but fork, _exit and wait4, in a process of the size of dayfly's parent.

No queue, no pipe, no row. What a worker of this size reaches with one child per
task cannot be more, whatever it does.
"""

from __future__ import annotations

import gc
import json
import os
import time
from argparse import ArgumentParser
from pathlib import Path

import psutil
import setproctitle
from django.core.management import load_command_class
from django.core.management.base import BaseCommand
from django.db import connection

from bench_project.work import STAMP


def load_what_the_worker_loads() -> None:
    """Import the worker and open the connection, so that this process is as large as its parent."""
    load_command_class("dayfly", "runworker")
    connection.ensure_connection()
    psutil.Process().memory_info()
    setproctitle.setproctitle("dayfly: bare fork")


def fork_and_wait(jobs: int, concurrency: int) -> list[int]:
    """Keep *concurrency* children in flight until *jobs* are done; return when each was reaped."""
    moments: list[int] = []
    started = 0
    while len(moments) < jobs:
        while started < jobs and started - len(moments) < concurrency:
            if os.fork() == 0:
                os._exit(0)
            started += 1
        os.wait4(-1, 0)
        moments.append(time.monotonic_ns())
    return moments


class Command(BaseCommand):
    """Fork, and write the stamps in the children's stead: a child does nothing at all."""

    help = __doc__
    # As runworker: the checks would leave 2 MB that its parent does not have.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Say how many children, and how many at a time."""
        parser.add_argument("--jobs", type=int, required=True)
        parser.add_argument("--concurrency", type=int, required=True)

    def handle(self, *, jobs: int, concurrency: int, **options: object) -> None:
        """Measure, then print the size of this process as JSON."""
        load_what_the_worker_loads()
        gc.collect()
        gc.freeze()
        moments = fork_and_wait(jobs, concurrency)
        stamps = b"".join(STAMP.pack(number, moment) for number, moment in enumerate(moments))
        Path(os.environ["DAYFLY_BENCH_STAMPS"]).write_bytes(stamps)
        self.stdout.write(json.dumps({"rss_bytes": psutil.Process().memory_info().rss}))
