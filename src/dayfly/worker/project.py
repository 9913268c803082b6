"""Child side: what a template, or a spawned child, does to hold the project. Named by launching.py, by dotted path."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import django
from django.apps import apps
from django.db import connections


def set_up() -> None:
    """Load settings, apps and models, and do without connection pools: they keep threads."""
    django.setup()
    from dayfly.worker import ground  # it needs the models

    ground.drop_pools()
    ground.preload()


def task_modules() -> Iterator[str]:
    """Give the module `tasks` of each installed app that has one, which is where tasks are by custom."""
    for config in apps.get_app_configs():
        name = f"{config.name}.tasks"
        if config.name != "dayfly" and find_spec(name) is not None:
            yield name


def open_connections() -> str:
    """Name the databases that what was loaded has connected to: a connection must not be forked."""
    names = [
        wrapper.alias for wrapper in connections.all(initialized_only=True) if wrapper.connection
    ]
    if not names:
        return ""
    return f"an open connection to database {', '.join(names)}: ask the database in functions, not on import"
