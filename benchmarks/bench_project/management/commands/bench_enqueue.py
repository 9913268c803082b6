"""Empty the queue and fill it anew."""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection, transaction

from bench_project.queues import queue


class Command(BaseCommand):
    """Every round starts from empty tables, whatever ran before."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Say what to enqueue."""
        parser.add_argument("--count", type=int, required=True)
        parser.add_argument("--task", choices=["noop", "leak"], default="noop")

    def handle(self, *, count: int, task: str, **options: object) -> None:
        """Enqueue all jobs in one transaction: filling is not what is measured."""
        call_command("flush", interactive=False, verbosity=0)
        target = queue()
        with transaction.atomic():
            for number in range(count):
                target.add(task, number)
        # A table filled at a stroke has no statistics yet; a queue in use has.
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
