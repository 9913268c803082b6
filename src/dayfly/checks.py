"""
System checks.

Django calls `check` of each backend in TASKS, which comes here (check_backend), but only
where its tasks were imported by then: importing them is why this module is loaded when the
app is ready. The backport does so only as an installed app; check_backends is for when it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.management import find_commands
from django.db import connections

from dayfly.backend import DatabaseBackend, database_backends
from dayfly.conf import is_there, problems


@register(Tags.compatibility)
def check_commands(**kwargs: Any) -> list[CheckMessage]:
    """Say who owns `manage.py runworker` when more than one app brings it (Channels does)."""
    owners = [
        config.name
        for config in apps.get_app_configs()
        if "runworker" in find_commands(str(Path(config.path) / "management"))
        or config.name == "dayfly"
    ]
    if len(owners) < 2:
        return []
    winner, others = owners[0], ", ".join(owners[1:])
    hint = "`manage.py dayfly worker` is always Dayfly's command."
    if winner != "dayfly":
        hint += ' To change who wins, put "dayfly" above it in INSTALLED_APPS.'
    message = (
        f"`manage.py runworker` is the command of {winner}, which stands first in"
        f" INSTALLED_APPS; that of {others} is hidden."
    )
    return [Warning(message, hint=hint, id="dayfly.W001")]


@register(Tags.compatibility)
def check_backends(**kwargs: Any) -> list[CheckMessage]:
    """Check our backends when nobody else calls their check."""
    if find_spec("django.tasks") is not None or apps.is_installed("django_tasks"):
        return []
    return [message for backend in database_backends() for message in check_backend(backend)]


def check_backend(backend: DatabaseBackend) -> Iterator[CheckMessage]:
    """Give what is wrong with one alias. Asks no database."""
    place = f'TASKS["{backend.alias}"]'
    wrong = problems(backend.options)
    for message, hint in wrong:
        yield Error(f'{place}["OPTIONS"]: {message}', hint=hint, id="dayfly.E001")
    for message, hint in backend.misplaced:
        yield Error(message, hint=hint, id="dayfly.E001")
    if not apps.is_installed("dayfly"):
        message = f"{place} uses dayfly.backend.DatabaseBackend, but the app is not installed."
        yield Error(message, hint='Add "dayfly" to INSTALLED_APPS.', id="dayfly.E002")
    elif not wrong and not backend.misplaced:
        yield from _check_database(backend, place)
        yield from _check_launcher(backend, place)
        yield from _check_names(backend, place)


def _check_names(backend: DatabaseBackend, place: str) -> Iterator[CheckMessage]:
    """Warn of modules that are not there, before a worker, a template or a child looks for them."""
    settings = backend.settings
    named = [("TEMPLATE_SETTINGS", settings.template_settings, settings.template_settings)]
    named += [("PRELOAD", module, module) for module in settings.preload]
    for option, path in (
        ("RECYCLE_POLICY", settings.recycle_policy),
        ("TEMPLATE_WARM_UP", settings.template_warm_up),
    ):
        named.append((option, path, path and path.rpartition(".")[0]))
    for option, value, module in named:
        if module and not is_there(module):
            message = (
                f'{place}["OPTIONS"]: {option} names {value!r}, but there is no module {module}.'
            )
            hint = "Correct the name, or see to it that the module can be imported."
            yield Warning(message, hint=hint, id="dayfly.W004")


def _check_launcher(backend: DatabaseBackend, place: str) -> Iterator[CheckMessage]:
    """Warn of tasks that would run in the worker itself where nobody debugs."""
    if backend.settings.launcher == "inline" and not django_settings.DEBUG:
        message = (
            f'{place}["OPTIONS"]: LAUNCHER is "inline", so tasks run in the worker itself: nothing is'
            " isolated, and no limit acts."
        )
        hint = "Leave LAUNCHER out, and debug with `runworker --launcher=inline`."
        yield Warning(message, hint=hint, id="dayfly.W003")


def _check_database(backend: DatabaseBackend, place: str) -> Iterator[CheckMessage]:
    """Check the database of the tables, by its settings alone."""
    alias = backend.database
    if alias not in connections:
        known = ", ".join(connections)
        message = f'{place}["OPTIONS"]: DATABASE is {alias!r}, which is not in DATABASES.'
        yield Error(message, hint=f"The aliases are {known}.", id="dayfly.E003")
        return
    connection = connections[alias]
    if connection.vendor not in ("sqlite", "postgresql", "mysql"):
        message = f"{place} keeps its jobs on {connection.display_name}, which is not supported."
        hint = "Use PostgreSQL, MariaDB, MySQL or SQLite: name one of them with DATABASE."
        yield Error(message, hint=hint, id="dayfly.E004")
    mode = connection.settings_dict.get("OPTIONS", {}).get("transaction_mode")
    if connection.vendor == "sqlite" and str(mode).upper() not in ("IMMEDIATE", "EXCLUSIVE"):
        message = (
            f"The SQLite database {alias!r} begins transactions as readers: one that writes"
            " later fails with 'database is locked' when a worker wrote in between."
        )
        hint = (
            f'In DATABASES["{alias}"]["OPTIONS"] set "transaction_mode": "IMMEDIATE" and'
            ' "init_command": "PRAGMA journal_mode=WAL;".'
        )
        yield Warning(message, hint=hint, id="dayfly.W002")
