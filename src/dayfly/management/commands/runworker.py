"""`manage.py runworker`: arguments to a Worker, nothing else."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from dayfly.management import workercommand


class Command(BaseCommand):
    """Run background tasks, each in a process of its own."""

    help = workercommand.DESCRIPTION
    # A worker needs no URL conf, no templates, no admin: lean settings leave them out.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the flags."""
        workercommand.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the worker."""
        workercommand.run(self, options)
