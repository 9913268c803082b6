"""
Settings of the tests. The database is named by DAYFLY_TEST_DATABASE_URL.

sqlite:// (the default) · postgresql://user:password@host:port/name · mysql://user:password@host:port/name
"""

from __future__ import annotations

import os
import tempfile
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

ENGINES = {
    "sqlite": "django.db.backends.sqlite3",
    "postgresql": "django.db.backends.postgresql",
    "mysql": "django.db.backends.mysql",
}


def database_from_url(url: str) -> dict[str, Any]:
    """Turn a URL into an entry of DATABASES. Query parameters become OPTIONS."""
    parts = urlsplit(url)
    if parts.scheme not in ENGINES:
        known = ", ".join(f"{scheme}://" for scheme in ENGINES)
        message = f"DAYFLY_TEST_DATABASE_URL={url!r} is not a database URL: use one of {known}"
        raise ValueError(message)
    options = dict(parse_qsl(parts.query))
    # Processes of their own (workers, children) must reach the test database: a file, not memory.
    # One of this checkout's: another may be tested at the same time.
    checkout = zlib.crc32(str(Path(__file__).resolve().parent).encode())
    directory = Path(tempfile.gettempdir()) / f"dayfly-tests-{os.getuid()}-{checkout:08x}"
    if parts.scheme == "sqlite":
        directory.mkdir(exist_ok=True)
        name = str(directory / f"db-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}.sqlite3")
        return {
            "ENGINE": ENGINES["sqlite"],
            "NAME": name,
            "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
            "TEST": {"NAME": name},
        }
    return {
        "ENGINE": ENGINES[parts.scheme],
        "NAME": parts.path.lstrip("/") or "test",
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "127.0.0.1",
        "PORT": parts.port or "",
        "OPTIONS": options,
        "CONN_MAX_AGE": None,
    }


DATABASES = {"default": database_from_url(os.environ.get("DAYFLY_TEST_DATABASE_URL", "sqlite://"))}
SECRET_KEY = "tests"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "dayfly",
    "tests",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "tests.urls"
TASKS = {
    "default": {"BACKEND": "dayfly.backend.DatabaseBackend", "QUEUES": []},
    "second": {"BACKEND": "dayfly.backend.DatabaseBackend", "QUEUES": ["mail", "reports"]},
}
