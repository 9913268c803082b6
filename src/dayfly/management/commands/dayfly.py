"""`manage.py dayfly worker`, the same as runworker where another app owns that name; `manage.py dayfly prune`."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from dayfly.management import prunecommand, workercommand


class Command(BaseCommand):
    """Dayfly's commands under a name that nobody else has."""

    help = (
        "Dayfly's commands. `dayfly worker` is `runworker`, also where Django Channels owns that"
        " name; `dayfly prune` deletes finished jobs."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the subcommands."""
        subparsers = parser.add_subparsers(dest="subcommand", required=True)
        worker = subparsers.add_parser("worker", help="Run background tasks (as runworker does).")
        workercommand.add_arguments(worker)
        prune = subparsers.add_parser("prune", help="Delete finished jobs and their runs.")
        prunecommand.add_arguments(prune)
        for subparser in (worker, prune):
            _add_djangos_flags(subparser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the subcommand."""
        run = {"worker": workercommand.run, "prune": prunecommand.run}[options["subcommand"]]
        run(self, options)


def _add_djangos_flags(parser: ArgumentParser) -> None:
    """Take them behind the subcommand, too, where people write them; Django declares them in front of it."""
    group = parser.add_argument_group("of every command of Django's")
    group.add_argument("-v", "--verbosity", type=int, choices=range(4), default=SUPPRESS)
    group.add_argument("--settings", default=SUPPRESS)
    group.add_argument("--pythonpath", default=SUPPRESS)
    for flag in ("--traceback", "--no-color", "--force-color"):
        group.add_argument(flag, action="store_true", default=SUPPRESS)
