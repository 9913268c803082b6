"""Both benchmarks: go on in an environment that has what dayfly is measured against."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / ".ci"))

import environment
import interpreters

VENV = environment.ROOT / ".venv-bench"
#: What the figures in docs/ are taken with, where it is installed.
WANTED_PYTHON = "3.13"

check_machine = environment.check_machine
one_sentence_errors = environment.one_sentence_errors


def enter(script: Path) -> None:
    """Run *script* anew with the environment's Python, in place of this process, unless it runs there."""
    # Modules are compiled once, as in production: else whoever starts a process pays for it each time.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if Path(sys.prefix).resolve() == VENV.resolve():
        return
    found = interpreters.find(WANTED_PYTHON)
    if found is None:
        print(f"Python {WANTED_PYTHON} was not found: measuring with {sys.version.split()[0]}.")
    python = environment.prepare("bench", groups=["bench"], python=found or sys.executable)
    os.execve(python, [python, str(script), *sys.argv[1:]], environment.environment_variables())
