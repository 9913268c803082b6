"""What commands take from the command line: names, numbers, a backend."""

from __future__ import annotations

import argparse
import logging
import math

from django.core.management.base import CommandError
from django.db import connections

from dayfly.backend import DatabaseBackend
from dayfly.compat import InvalidTaskBackend, task_backends

logger = logging.getLogger("dayfly")


def add_selection(
    parser: argparse._ActionsContainer, *, queues: str, exclude: str, backend: str
) -> None:
    """Declare the flags that say which jobs are meant, with the help that each command has for them."""
    parser.add_argument(
        "--queues", "--queue", "--queue-name",
        dest="queues", default=None, metavar="NAMES", help=queues,
    )  # fmt: skip
    parser.add_argument("--exclude-queues", default="", metavar="NAMES", help=exclude)
    parser.add_argument(
        "--backend", dest="backend_name", default="default", metavar="ALIAS", help=backend
    )


def queue_names(text: str | None) -> tuple[str, ...]:
    """
    Read --queues; "*" among them, as without the flag, is all.

    Raises:
        CommandError: it names none.
    """
    found = ("*",) if text is None else names(text)
    if not found:
        raise CommandError("--queues names no queue: give names, separated by commas, or * for all")
    return found


def database_backend(alias: str) -> DatabaseBackend:
    """
    Return the backend of the entry *alias* of TASKS.

    Raises:
        CommandError: there is none, it is not dayfly's, or its database is not in DATABASES.
    """
    backend = _backend(alias)
    if not isinstance(backend, DatabaseBackend):
        message = (
            f"TASKS[{alias!r}] is not a backend of dayfly."
            ' Set its BACKEND to "dayfly.backend.DatabaseBackend".'
        )
        raise CommandError(message)
    if backend.database not in connections:
        message = (
            f"TASKS[{alias!r}] has its tables on database {backend.database!r}, "
            "which is not in DATABASES: add it there, or correct the option DATABASE."
        )
        raise CommandError(message)
    return backend


def _backend(alias: str) -> object:
    """Return whatever backend TASKS names, or say what is wrong with its entry."""
    entries = task_backends.settings
    if alias not in entries:
        message = f"TASKS has no entry {alias!r}; its entries are {', '.join(map(str, entries))}."
        raise CommandError(message)
    if "BACKEND" not in entries[alias]:
        message = (
            f'TASKS[{alias!r}] has no BACKEND. Set its BACKEND to "dayfly.backend.DatabaseBackend".'
        )
        raise CommandError(message)
    try:
        return task_backends[alias]
    except InvalidTaskBackend as error:
        raise CommandError(str(error)) from error


def warn_of_unknown_queues(backend: DatabaseBackend, queues: tuple[str, ...]) -> None:
    """Say of which no task can be enqueued; jobs of yesterday's settings may still be there."""
    unknown = sorted(set(queues) - {"*"} - backend.queues) if backend.queues else []
    if unknown:
        logger.warning(
            "No task can be enqueued on %s: QUEUES of TASKS[%r] has only %s.",
            ", ".join(unknown),
            backend.alias,
            ", ".join(sorted(backend.queues)),
        )


def names(text: str) -> tuple[str, ...]:
    """Take names apart that are separated by commas."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


def positive(text: str) -> int:
    """Read a whole number above 0."""
    return _whole_number(text, least=1, words="above 0")


def count(text: str) -> int:
    """Read a whole number from 0 up."""
    return _whole_number(text, least=0, words="from 0 up")


def _whole_number(text: str, *, least: int, words: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < least:
        message = f"{text!r} is not a whole number {words}"
        raise argparse.ArgumentTypeError(message)
    return value


def seconds(text: str) -> float:
    """Read a number of seconds from 0 up."""
    return _number(text, words="seconds")


def days(text: str) -> float:
    """Read a number of days from 0 up."""
    return _number(text, words="days")


def _number(text: str, *, words: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not math.isfinite(value) or value < 0:
        message = f"{text!r} is not a number of {words} from 0 up"
        raise argparse.ArgumentTypeError(message)
    return value
