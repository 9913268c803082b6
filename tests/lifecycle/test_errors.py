"""A worker that cannot start says why in one sentence, and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, transaction

from tests.helpers import ROOT
from tests.workers import SETTINGS, worker_environment

pytestmark = pytest.mark.django_db(transaction=True)

PREAMBLE = "from tests.lifecycle.settings import *\n"


def refusal(
    *flags: str, options: dict[str, object] | None = None, settings: str = SETTINGS, path: str = ""
) -> str:
    """Start a worker that cannot start; return what it says on stderr."""
    variables = worker_environment(options, DJANGO_SETTINGS_MODULE=settings)
    variables["PYTHONPATH"] += os.pathsep + path
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "django", "runworker", "--batch", *flags],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0, done.stdout
    return done.stderr


def one_sentence(error: str) -> str:
    """Return the message of a CommandError, which must be all there is."""
    assert "Traceback" not in error
    (line,) = error.strip().splitlines()
    assert line.startswith("CommandError: ")
    return line.removeprefix("CommandError: ")


@pytest.fixture
def settings_with(tmp_path: Path) -> Any:
    """Return a function that writes a settings module and tells its name and directory."""

    def write(text: str) -> dict[str, str]:
        (tmp_path / "special_settings.py").write_text(PREAMBLE + text)
        return {"settings": "special_settings", "path": str(tmp_path)}

    return write


def test_unknown_backend() -> None:
    message = one_sentence(refusal("--backend=nowhere"))

    assert message == "TASKS has no entry 'nowhere'; its entries are default, second."


def test_backend_of_somebody_else(settings_with: Any) -> None:
    how = settings_with(
        'TASKS["other"] = {"BACKEND": IMMEDIATE}\n'.replace("IMMEDIATE", immediate())
    )

    message = one_sentence(refusal("--backend=other", **how))

    assert message == (
        "TASKS['other'] is not a backend of dayfly."
        ' Set its BACKEND to "dayfly.backend.DatabaseBackend".'
    )


def immediate() -> str:
    from dayfly.compat import BaseTaskBackend

    package = BaseTaskBackend.__module__.partition(".backends")[0]
    return repr(f"{package}.backends.immediate.ImmediateBackend")


def test_unreachable_database(settings_with: Any) -> None:
    engine = {
        "sqlite": 'DATABASES["default"]["NAME"] = "/nonexistent/directory/db.sqlite3"',
        "postgresql": 'DATABASES["default"].update(HOST="127.0.0.1", PORT=1)',
        "mysql": 'DATABASES["default"].update(HOST="127.0.0.1", PORT=1)',
    }[connection.vendor]

    error = refusal(**settings_with(engine + "\n"))

    error = one_sentence(error)
    assert error.startswith("The database cannot be used: ")
    assert "?." not in error
    assert "Is the server up (of SQLite: may its directory be written to)" in error


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="stands in for a standby")
def test_database_that_refuses_to_be_written_to(settings_with: Any) -> None:
    option = 'DATABASES["default"]["OPTIONS"]["options"] = "-c default_transaction_read_only=on"\n'

    error = one_sentence(refusal(**settings_with(option)))

    assert error.startswith("The database cannot be used: cannot execute INSERT in a read-only")


def test_missing_tables(settings_with: Any, tmp_path: Path) -> None:
    how = settings_with(
        f'DATABASES["empty"] = {{"ENGINE": "django.db.backends.sqlite3", "NAME": "{tmp_path}/db"}}\n'
        'TASKS["default"]["OPTIONS"]["DATABASE"] = "empty"\n'
    )

    message = one_sentence(refusal(**how))

    assert message == (
        "The tables of dayfly are missing in database 'empty'. "
        "Run: python manage.py migrate dayfly --database=empty"
    )


def test_sqlite_in_memory(settings_with: Any) -> None:
    how = settings_with(
        'DATABASES["empty"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}\n'
        'TASKS["default"]["OPTIONS"]["DATABASE"] = "empty"\n'
    )

    message = one_sentence(refusal(**how))

    assert message.startswith("Database 'empty' is SQLite in memory, which no child can see.")


def test_database_that_is_not_in_databases() -> None:
    message = one_sentence(refusal(options={"DATABASE": "nowhere"}))

    assert message == (
        "TASKS['default'] has its tables on database 'nowhere', "
        "which is not in DATABASES: add it there, or correct the option DATABASE."
    )


def test_working_directory_that_does_not_exist(tmp_path: Path) -> None:
    message = one_sentence(refusal(f"--workdir={tmp_path}/nowhere"))

    assert message == (
        f"The working directory {tmp_path}/nowhere does not exist. Name another with --workdir."
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"LEASE_SECOND": 60}, "Did you mean LEASE_SECONDS?"),
        ({"LEASE_SECONDS": 1}, "a number of seconds, 5 or more"),
        ({"RECYCLE_POLICY": "tests.nowhere.Policy"}, "tests.nowhere.Policy"),
    ],
)
def test_wrong_option(options: dict[str, object], words: str) -> None:
    message = one_sentence(refusal(options=options))

    assert words in message
    assert next(iter(options)) in message


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (["--template-settings=shop.settings"], {}),
        ([], {"TEMPLATE_SETTINGS": "shop.settings"}),
    ],
)
def test_template_settings_that_lead_nowhere(flags: list[str], options: dict[str, object]) -> None:
    message = one_sentence(refusal(*flags, options=options))

    assert message.startswith("There is no settings module 'shop.settings': correct TEMPLATE_SET")


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--concurrency=0", "is not a whole number above 0"),
        ("--interval=-1", "is not a number of seconds from 0 up"),
        ("--interval=nan", "is not a number of seconds from 0 up"),
        ("--max-tasks-per-child=few", "is not a whole number from 0 up"),
        ("--max-tasks=0", "is not a whole number above 0"),
    ],
)
def test_wrong_flag(flag: str, words: str) -> None:
    error = refusal(flag)

    assert "Traceback" not in error
    assert words in error


def test_inside_a_transaction() -> None:
    with transaction.atomic(), pytest.raises(CommandError, match="cannot run inside") as caught:
        call_command("runworker", batch=True, verbosity=0)

    assert "TransactionTestCase" in str(caught.value)
    assert "\n" not in str(caught.value)
