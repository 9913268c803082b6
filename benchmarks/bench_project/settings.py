"""
Settings of the benchmark's project: the same for every contender, apart from its own app and backend.

DAYFLY_BENCH_SYSTEM        whose queue it is: dayfly, db_worker or plain
DAYFLY_BENCH_DATABASE      sqlite:///path/to/file or postgresql://user:password@host:port/name
DAYFLY_BENCH_CONN_MAX_AGE  seconds, or "none" for connections that stay open (default 0, as in Django)
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote, urlsplit

SYSTEMS: dict[str, tuple[str | None, str]] = {
    "dayfly": ("dayfly", "dayfly.backend.DatabaseBackend"),
    "db_worker": ("django_tasks_db", "django_tasks_db.DatabaseBackend"),
    "plain": (None, "django.tasks.backends.dummy.DummyBackend"),
}


def database_from_url(url: str, conn_max_age: int | None) -> dict[str, Any]:
    """Turn a URL into an entry of DATABASES."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": parts.path,
            "CONN_MAX_AGE": conn_max_age,
            # For all alike: what a queue with several writers needs on SQLite.
            "OPTIONS": {
                "timeout": 30,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
            },
        }
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "127.0.0.1",
        "PORT": parts.port or "",
        "CONN_MAX_AGE": conn_max_age,
    }


def seconds_or_none(text: str) -> int | None:
    """Read DAYFLY_BENCH_CONN_MAX_AGE."""
    return None if text == "none" else int(text)


APP, BACKEND = SYSTEMS[os.environ.get("DAYFLY_BENCH_SYSTEM", "dayfly")]
DATABASES = {
    "default": database_from_url(
        os.environ.get("DAYFLY_BENCH_DATABASE", "sqlite:////nonexistent/bench.sqlite3"),
        seconds_or_none(os.environ.get("DAYFLY_BENCH_CONN_MAX_AGE", "0")),
    )
}
INSTALLED_APPS = ["bench_project", *([APP] if APP else [])]
if find_spec("django.tasks") is None:
    INSTALLED_APPS.append("django_tasks")
    BACKEND = BACKEND.replace("django.tasks.", "django_tasks.")
TASKS = {"default": {"BACKEND": BACKEND}}
SECRET_KEY = "benchmark"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
