"""`manage.py dayfly worker`, the same as runworker where another app owns that name; `manage.py dayfly prune`."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from dayfly.management import prunecommand, workercommand


class Subparser(CommandParser):
    """The parser of one subcommand, which speaks for itself when it is given what it does not know."""

    def parse_known_args(  # type: ignore[override]  # one signature for all its overloads
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Namespace, list[str]]:
        """Leave nothing to the parser above it, whose usage would name none of these flags."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


class Command(BaseCommand):
    """Dayfly's commands under a name that nobody else has."""

    help = (
        "Dayfly's commands. `dayfly worker` is `runworker`, also where Django Channels owns that"
        " name; `dayfly prune` deletes finished jobs."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the subcommands."""
        subparsers = parser.add_subparsers(dest="subcommand", required=True, parser_class=Subparser)
        worker = subparsers.add_parser(
            "worker",
            help="Run background tasks (as runworker does).",
            description=workercommand.DESCRIPTION,
        )
        workercommand.add_arguments(worker)
        prune = subparsers.add_parser(
            "prune",
            help="Delete finished jobs and their runs.",
            description=prunecommand.DESCRIPTION,
        )
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
    group.add_argument(
        "-v", "--verbosity", type=int, choices=range(4), default=SUPPRESS,
        help="How much is said: 0 nothing, 1 as usual, 2 and 3 more.",
    )  # fmt: skip
    group.add_argument(
        "--settings",
        default=SUPPRESS,
        help="The settings module, instead of DJANGO_SETTINGS_MODULE.",
    )
    group.add_argument(
        "--pythonpath", default=SUPPRESS, help="A directory to add to the Python path."
    )
    for flag, meaning in (
        ("--traceback", "Show the traceback of an error instead of one sentence."),
        ("--no-color", "Do without colors."),
        ("--force-color", "Use colors also where nobody looks."),
    ):
        group.add_argument(flag, action="store_true", default=SUPPRESS, help=meaning)
