"""
Make a virtual environment inside the checkout, and use it again the next time.

For the scripts that a person starts with a bare Python: the example, the tests, the
benchmarks, the gate. Standard library only, as nothing is installed yet.

    prepare("example", groups=["example"])  ->  .venv-example/  ->  the path of its python
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
#: The first pip that reads [dependency-groups].
PIP = "pip>=25.1"
STAMP = "dayfly-environment.json"
#: What pip says when it was not the package that was wrong.
NO_NETWORK = (
    "name resolution",
    "NewConnectionError",
    "Connection refused",
    "Network is unreachable",
    "No route to host",
    "ConnectTimeoutError",
    "Max retries exceeded",
    # An index that has no pip at all is none.
    "pip>=25.1 (from versions: none)",
)


class CannotPrepare(Exception):
    """The environment could not be made. The message is one sentence for a person."""


def prepare(name, groups, django="", python=sys.executable):
    """
    Return the path of a python in `.venv-<name>/` with Dayfly and *groups* installed.

    The environment is installed anew when the project's dependencies, the wanted
    Django ("5.2"; empty: the newest that this Python takes) or the Python changed.

    Raises:
        CannotPrepare: the machine does not allow it.
    """
    check_machine()
    if django and not re.fullmatch(r"\d+\.\d+", django):
        raise CannotPrepare(f"--django takes a series like 5.2, and {django!r} is none.")
    directory = ROOT / f".venv-{name}"
    wanted = {
        "python": version_of(python),
        "groups": sorted(groups),
        "django": django,
        "pyproject": hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest(),
        # A checkout that was moved or copied: the editable install points at the old place.
        "root": str(ROOT),
    }
    inside = directory / "bin" / "python"
    installed = read_stamp(directory)
    if installed == wanted and inside.exists():
        say(f"Using {directory.name}/ (Python {wanted['python']}).")
        return str(inside)
    if installed is None or installed["python"] != wanted["python"]:
        make(directory, python, wanted["python"])
    (directory / STAMP).unlink(missing_ok=True)
    install(str(inside), groups, django, wanted["python"])
    (directory / STAMP).write_text(json.dumps(wanted))
    return str(inside)


def environment_variables(**more):
    """Return the variables for a process in the environment: none that change which code it finds."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "DJANGO_SETTINGS_MODULE", "VIRTUAL_ENV"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, **more}


def check_machine():
    """Say at once when this machine cannot run Dayfly at all."""
    if not sys.platform.startswith("linux"):
        raise CannotPrepare(
            f"Dayfly runs on Linux, and this is {sys.platform}: use a Linux machine or container."
        )
    if sys.version_info < OLDEST_PYTHON:
        raise CannotPrepare(
            f"Dayfly needs Python 3.11 or later, and {sys.executable} is {sys.version.split()[0]}: "
            "start this script with a newer one, for example python3.13."
        )


def version_of(python):
    """Return the version of the interpreter at *python*, "3.13.0"."""
    code = "import platform; print(platform.python_version())"
    return subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def read_stamp(directory):
    """Return what was installed into *directory*, or None."""
    try:
        return json.loads((directory / STAMP).read_text())
    except (OSError, ValueError):
        return None


def make(directory, python, version):
    """Make an empty environment at *directory*, whatever stood there before."""
    say(f"Making {directory.name}/ with Python {version} ...")
    shutil.rmtree(directory, ignore_errors=True)
    made = subprocess.run([python, "-m", "venv", str(directory)], capture_output=True, text=True)
    if made.returncode != 0:
        shutil.rmtree(directory, ignore_errors=True)
        if "ensurepip" in made.stdout + made.stderr or "No module named venv" in made.stderr:
            short = ".".join(version.split(".")[:2])
            raise CannotPrepare(
                f"{python} cannot make virtual environments: install its venv module "
                f"(on Debian and Ubuntu: apt install python{short}-venv)."
            )
        raise CannotPrepare(f"{python} -m venv failed: {last_line(made.stderr or made.stdout)}")


def install(python, groups, django, version):
    """Install Dayfly (editable) and *groups*, showing what is being fetched."""
    pip_install(python, "pip itself", ["--upgrade", PIP])
    requirements = ["--editable", str(ROOT)]
    for group in groups:
        requirements += ["--group", f"{ROOT / 'pyproject.toml'}:{group}"]
    if django:
        requirements.append(f"django~={django}.0")
    if django == "5.2" and tuple(map(int, version.split(".")[:2])) >= (3, 12):
        # Django 5.2 has no tasks of its own; below Python 3.12 Dayfly asks for the backport itself.
        requirements.append("django-tasks>=0.12")
    what = (
        "Dayfly" + (f", Django {django}" if django else "") + f" and what {', '.join(groups)} needs"
    )
    pip_install(python, what, requirements)


def pip_install(python, what, arguments):
    """Run pip install with one line of progress; a failure becomes one sentence."""
    started = time.monotonic()
    say(f"Installing {what} ...")
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-color"]
    command += ["--no-input", "--progress-bar", "off", *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment_variables(PIP_ROOT_USER_ACTION="ignore"),
    )
    lines = []
    with process:
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("Collecting "):
                show_status(line.split()[1])
    show_status("")
    if process.returncode != 0:
        raise CannotPrepare(explain(what, lines))
    say(f"  done in {time.monotonic() - started:.0f} s")


def explain(what, lines):
    """Turn the output of a failed pip into one sentence, after the lines that a reader may need."""
    text = "\n".join(lines)
    if any(sign in text for sign in NO_NETWORK):
        return (
            f"Installing {what} failed as the package index cannot be reached: "
            "check the network, or point pip at an index of yours (PIP_INDEX_URL)."
        )
    for line in lines[-15:]:
        say(f"  | {line[:160]}")
    errors = [line for line in lines if line.startswith("ERROR: ")] or ["pip gave no reason"]
    return f"Installing {what} failed: {errors[-1].removeprefix('ERROR: ')}"


def last_line(text):
    """Return the last line of *text* that says something."""
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["no reason given"])[-1]


def show_status(text):
    """Show *text* on the last line of a terminal; elsewhere nothing, as it could not be taken back."""
    if sys.stdout.isatty():
        sys.stdout.write(f"\r\x1b[K  {text}"[: 4 + 78] if text else "\r\x1b[K")
        sys.stdout.flush()


def say(text):
    """Print a line at once, so that it stands before what child processes print."""
    print(text, flush=True)


@contextlib.contextmanager
def one_sentence_errors():
    """End the script with the sentence of a CannotPrepare, or quietly after Ctrl-C."""
    try:
        yield
    except CannotPrepare as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
