"""
Pass the tests, from a bare Python: makes an environment in `.venv-test/` and runs pytest in it.

    python3 tests/run.py                        on SQLite, with the newest Django for this Python
    python3 tests/run.py --django 5.2           with another one, in an environment of its own
    python3 tests/run.py -k lease -x            whatever else is given goes to pytest

DAYFLY_TEST_DATABASE_URLS names the databases to test on, separated by commas; tests that touch
no database run with the first of them only. The drivers
are installed when a URL asks for them (mysqlclient is built: it needs a compiler,
pkg-config and libmariadb-dev or libmysqlclient-dev):

    DAYFLY_TEST_DATABASE_URLS=sqlite://,postgresql://me@127.0.0.1/dayfly,mysql://me@127.0.0.1/dayfly
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / ".ci"))

import environment
from environment import ROOT, say

#: Tests that touch no database.
WITHOUT_DATABASE = [
    "--ignore=tests/executor",
    "--ignore-glob=tests/test_docs*",
    "--ignore=tests/test_architecture.py",
    "--ignore=tests/test_benchmarks.py",
    "--ignore=tests/test_gate.py",
]
DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MariaDB/MySQL"}


def main():
    """Make the environment, then run the suite once for each database."""
    arguments, for_pytest = parse()
    urls = database_urls()
    schemes = [scheme_of(url) for url in urls]
    python = environment.prepare(
        "-".join(["test", *filter(None, [arguments.name])]),
        groups=[
            "test",
            *arguments.group,
            *(each for each in DATABASES if each in schemes and each != "sqlite"),
        ],
        django=arguments.django,
    )
    # What touches no database passes or fails the same on each: the first has it.
    with_all = None if arguments.only_with_database else urls[0]
    plans = [(url, [] if url == with_all else WITHOUT_DATABASE) for url in urls]
    failed = [url for url, left in plans if not passes(python, url, [*left, *for_pytest])]
    say("")
    say(f"Tested on: {names(schemes)}.")
    left_out = [scheme for scheme in DATABASES if scheme not in schemes]
    if left_out:
        say(
            f"LEFT OUT: {names(left_out)}. To test there too, name servers in DAYFLY_TEST_DATABASE_URLS: "
            "sqlite://,postgresql://USER@HOST/NAME,mysql://USER@HOST/NAME"
        )
    if failed:
        say(f"FAILED on: {names([scheme_of(url) for url in failed])}.")
    return 1 if failed else 0


def parse():
    """Take our few options; all others are pytest's."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--django", default="", metavar="X.Y", help="test with this Django, for example 5.2"
    )
    parser.add_argument(
        "--group",
        action="append",
        default=[],
        help="install this dependency group too (example, bench)",
    )
    parser.add_argument(
        "--only-with-database",
        action="store_true",
        help="leave out what touches no database, when that was tested with this Python already",
    )
    parser.add_argument(
        "--name", default="", help="use .venv-test-NAME/, so that .venv-test/ stays as it is"
    )
    arguments, for_pytest = parser.parse_known_args()
    if arguments.django and not arguments.name:
        arguments.name = f"django{arguments.django}"
    return arguments, for_pytest


def database_urls():
    """Return the URLs to test on."""
    text = os.environ.get("DAYFLY_TEST_DATABASE_URLS", "")
    urls = [url.strip() for url in text.split(",") if url.strip()] or ["sqlite://"]
    for url in urls:
        if scheme_of(url) not in DATABASES:
            known = ", ".join(f"{scheme}://" for scheme in DATABASES)
            raise environment.CannotPrepare(
                f"{url!r} in DAYFLY_TEST_DATABASE_URLS is not a database URL: use one of {known}."
            )
    return urls


def passes(python, url, for_pytest):
    """Run the suite on the database at *url*; tell whether all of it passed."""
    say("")
    say(f"=== Tests on {DATABASES[scheme_of(url)]}, {versions(python)} ===")
    # A directory of this run's own: another checkout's tests may run at the same time.
    with tempfile.TemporaryDirectory(prefix="dayfly-tests-") as directory:
        variables = environment.environment_variables(
            DAYFLY_TEST_DATABASE_URL=url, TMPDIR=directory
        )
        ended = subprocess.run([python, "-m", "pytest", *for_pytest], cwd=ROOT, env=variables)
    return ended.returncode == 0


def versions(python):
    """Return "Python 3.13.0, Django 6.1.3" for the interpreter at *python*."""
    code = "import django, platform; print(f'Python {platform.python_version()}, Django {django.__version__}')"
    return subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def scheme_of(url):
    """Return what stands before "://"."""
    return url.partition("://")[0]


def names(schemes):
    """Return the names of databases for a sentence."""
    return ", ".join(DATABASES[scheme] for scheme in schemes)


if __name__ == "__main__":
    with environment.one_sentence_errors():
        sys.exit(main())
