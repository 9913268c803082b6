"""Enqueue jobs one by one at random moments; print, as JSON, when each was enqueued."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from pathlib import Path

from django.core.management.base import BaseCommand

from bench_project.pace import enqueue_at_random_moments
from bench_project.queues import queue


class Command(BaseCommand):
    """One process with one open connection, like a web process that serves requests."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Say how many."""
        parser.add_argument("--count", type=int, required=True)

    def handle(self, *, count: int, **options: object) -> None:
        """Enqueue, then print the moments."""
        target = queue()
        stamps = Path(os.environ["DAYFLY_BENCH_STAMPS"])
        moments = enqueue_at_random_moments(
            lambda number: target.add("noop", number), count, stamps
        )
        self.stdout.write(json.dumps(moments))
