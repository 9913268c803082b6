"""Print, as JSON, what became of the jobs and what the system recorded of its worker."""

from __future__ import annotations

import json
from collections import Counter

from django.core.management.base import BaseCommand

from bench_project.queues import queue


class Command(BaseCommand):
    """Read after a round, by the harness."""

    help = __doc__

    def handle(self, **options: object) -> None:
        """Print one line."""
        source = queue()
        found = {
            "statuses": Counter(source.statuses()),
            "worker_rss_bytes": source.worker_rss_bytes(),
        }
        self.stdout.write(json.dumps(found))
