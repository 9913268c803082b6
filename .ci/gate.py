"""
The gate: what must pass before a change lands. Started by `.ci/run`.

Format, lint, types; the README's two commands as a reader would run them; then the suite
over the pairs of Python and Django that this machine can make and on every database, each
once; --full tests every pair on every database. What cannot be had here is left out loudly;
in CI (CI=true) a missing database is a failure.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys

import debian
import environment
import interpreters
import matrix
import qemu
import servers
from environment import ROOT, CannotPrepare
from interpreters import MAIN_PAIR, PAIRS
from matrix import Pair
from steps import Score, Step, run

KERNEL_TITLE = "Real kernel: cgroups and memory kills in a virtual machine"
NEWEST_TITLE = f"Newest Debian: Python {debian.PYTHON} and MySQL"
#: What may differ on a new interpreter, and on a database that MariaDB only resembles.
NEWEST_SAMPLE = [
    "tests/executor/test_heap.py",
    "tests/executor/test_isolation.py",
    "tests/executor/test_launchers.py",
    "tests/executor/test_pool.py",
    "tests/test_backend.py",
    "tests/test_faults.py",
    "tests/test_models.py",
    "tests/test_pruning.py",
    "tests/test_queue.py",
    "tests/lifecycle/test_databases.py",
    "tests/lifecycle/test_endings.py",
]
IN_CI = os.environ.get("CI", "").lower() in ("true", "1")
#: Test every pair on every database, and all that takes a kernel of its own.
FULL = "--full"


def main(words: list[str]) -> int:
    full = FULL in words
    score = Score([word for word in words if word != FULL])
    pairs = find_pairs(score)
    check_code(score, pairs)
    run_readme(score)
    test_pairs(score, pairs, full=full)
    test_newest(score, full=full)
    test_kernel(score, pairs, full=full)
    return score.finish()


def find_pairs(score: Score) -> dict[Pair, str]:
    """Return the pairs whose interpreter is here, with its path, the main one first."""
    found = {}
    for pair in sorted(PAIRS, key=lambda pair: pair != MAIN_PAIR):
        python = interpreters.find(pair[0])
        if python:
            found[pair] = python
            print(f"Python {pair[0]} with Django {pair[1]}: {python}", flush=True)
        elif pair[0] != debian.PYTHON:  # which may be had otherwise: see test_newest
            score.leave_out(
                f"Python {pair[0]} with Django {pair[1]}, as there is no python{pair[0]}."
            )
    return found


def check_code(score: Score, pairs: dict[Pair, str]) -> None:
    """Format, lint and types, with the tools of one environment."""
    checks = [
        ("Format", ["ruff", "format", "--check", "."]),
        ("Lint", ["ruff", "check", "."]),
        ("Types", ["mypy"]),
    ]
    if not any(score.wants(title) for title, _ in checks):
        return
    # With the main pair's Django, whose sources the types are checked against.
    (_, django), python = next(iter(pairs.items()), (("", ""), sys.executable))
    made: list[str] = []

    def make(step: Step) -> bool:
        try:
            made.append(environment.prepare("ci", ["lint", "types", "postgresql"], django, python))
        except CannotPrepare as error:
            print(f"Error: {error}", flush=True)
        return bool(made)

    if not score.do("Tools for format, lint and types", make):
        return
    for title, command in checks:
        score.command(title, [made[0], "-m", *command])


def run_readme(score: Score) -> None:
    """Run the two commands just as they are printed."""
    for title in ("Test it", "Run it"):
        score.command(f"README: {title}", readme_command(title), {"DAYFLY_TEST_DATABASE_URLS": ""})


def readme_command(title: str) -> str:
    """Return the one line in the fenced block under "## *title*"."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    blocks = re.findall(r"^```\w*\n(.*?)^```", section.group(1), re.M | re.S) if section else []
    if not blocks or blocks[0].count("\n") != 1:
        sys.exit(f"Error: README.md has no fenced block of one line under '## {title}': add it.")
    return blocks[0].strip()


def test_pairs(score: Score, pairs: dict[Pair, str], *, full: bool) -> None:
    """Run the suite on the databases of each pair."""
    if not pairs:
        score.do("Tests over the pairs", lambda step: False)
        return
    of_readme = version_of_readme(score)
    plans = {
        pair: schemes
        for pair, schemes in matrix.databases(list(pairs), of_readme=of_readme, full=full).items()
        if schemes and score.wants(tests_title(pair, schemes))
    }
    if not plans:
        return
    urls = {"sqlite": "sqlite://", **server_urls(score, plans, pairs)}
    with_all = matrix.versions_for_all(list(pairs), of_readme)
    for pair, wanted in plans.items():
        here = [scheme for scheme in wanted if scheme in urls]
        if not here:
            continue
        command = [pairs[pair], "tests/run.py", "--django", pair[1]]
        command += ["--name", f"python{pair[0]}-django{pair[1]}"]
        if pair[0] not in with_all:
            command.append("--only-with-database")
        variables = {"DAYFLY_TEST_DATABASE_URLS": ",".join(urls[scheme] for scheme in here)}
        if pair == next(iter(pairs)):
            # Once is enough: the example has a database of its own.
            command += ["--group", "example"]
            variables["DAYFLY_TEST_EXAMPLE"] = "required"
        title = tests_title(pair, here)
        score.do(title, functools.partial(run, command=command, variables=variables))


def test_newest(score: Score, *, full: bool) -> None:
    """Run a sample, or all, with a Python and on a database that this machine may not have."""
    if not score.wants(NEWEST_TITLE):
        return
    try:
        directory = debian.make_ready()
    except servers.NotThere as error:
        score.leave_out(f"{NEWEST_TITLE}: {error}")
        return
    django = dict(PAIRS)[debian.PYTHON]
    inside = [f"python{debian.PYTHON}", ".ci/newest.py", "--django", django]
    command = debian.command(directory, *inside, *([] if full else NEWEST_SAMPLE))
    score.command(NEWEST_TITLE, command)


def test_kernel(score: Score, pairs: dict[Pair, str], *, full: bool) -> None:
    """
    Run what takes a kernel of its own, with the main pair: a sample, as most guests are emulated.

    All of it takes twelve minutes then.
    """
    if not pairs or not score.wants(KERNEL_TITLE):
        return
    try:
        qemu.make_ready()
    except servers.NotThere as error:
        score.leave_out(f"{KERNEL_TITLE}: {error}")
        return
    (_, django), python = next(iter(pairs.items()))

    def act(step: Step) -> bool:
        try:
            inside = environment.prepare("test-vm", ["test"], django, python)
        except CannotPrepare as error:
            print(f"Error: {error}", flush=True)
            return False
        command = [sys.executable, "tests/vm/run.py", "--python", inside]
        return run(step, command if full else [*command, "-k", "fork or test_worker"], {})

    score.do(KERNEL_TITLE, act)


def version_of_readme(score: Score) -> str | None:
    """Return the version of the Python that the README's command tested with ("3.11"), if it ran."""
    if not score.wants("README: Test it"):
        return None
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    found = subprocess.run(["python3", "-c", code], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def tests_title(pair: Pair, schemes: list[str]) -> str:
    names = [servers.NAMES.get(scheme, "SQLite") for scheme in schemes]
    return f"Tests: Python {pair[0]}, Django {pair[1]}, {' and '.join(names)}"


def server_urls(
    score: Score, plans: dict[Pair, list[str]], pairs: dict[Pair, str]
) -> dict[str, str]:
    """Return the URLs of those servers of *plans* that answer, after starting them."""
    urls: dict[str, str] = {}
    for scheme in sorted({scheme for schemes in plans.values() for scheme in schemes} - {"sqlite"}):
        name = servers.NAMES[scheme]

        def make_ready(step: Step, scheme: str = scheme, name: str = name) -> bool:
            try:
                if scheme == "mysql":
                    servers.make_client_library_ready(without_headers(plans, pairs))
                urls[scheme] = servers.make_ready(scheme)
            except (servers.NotThere, subprocess.SubprocessError) as error:
                print(f"Error: {error}", flush=True)
                score.leave_out(f"{name}: {error}")
            # Outside CI a developer may do without; what was left out is said at the end.
            return scheme in urls or not IN_CI

        score.do(f"{name} answers", make_ready)
    return urls


def without_headers(plans: dict[Pair, list[str]], pairs: dict[Pair, str]) -> list[str]:
    """Return the Pythons to be tested on MariaDB that lack the headers to build its driver."""
    return [
        pair[0]
        for pair, schemes in plans.items()
        if "mysql" in schemes and not interpreters.has_headers(pairs[pair])
    ]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
