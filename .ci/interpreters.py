"""Find the Pythons of this machine that the gate tests with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

#: Old with old, new with new: (Python, Django).
PAIRS = [("3.11", "5.2"), ("3.12", "6.0"), ("3.13", "6.1"), ("3.14", "6.1")]
#: The pair that is tested on every database, as most of its users will have it.
MAIN_PAIR = ("3.13", "6.1")
#: Everything that a run needs of an interpreter; a pyenv shim without its version fails here.
PROBE = "import ensurepip, sqlite3, ssl, sys, venv; print('%d.%d' % sys.version_info[:2], sys.executable)"


def find(short: str) -> str | None:
    """Return the path of a working Python *short* ("3.13"), or None."""
    for candidate in candidates(short):
        try:
            probe = subprocess.run(
                [candidate, "-c", PROBE], capture_output=True, text=True, timeout=60, check=True
            )
        except (OSError, subprocess.SubprocessError):
            continue
        found, _, path = probe.stdout.strip().partition(" ")
        if found == short:
            return path
    return None


def candidates(short: str) -> list[Path]:
    """Return where a Python *short* may be: on PATH, and among pyenv's versions."""
    name = f"python{short}"
    on_path = [Path(directory) / name for directory in os.get_exec_path()]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    of_pyenv = sorted(pyenv.glob(f"versions/{short}*/bin/{name}"), reverse=True)
    return [path for path in [*on_path, *of_pyenv] if path.exists()]


def has_headers(python: str) -> bool:
    """Tell whether extensions in C can be built for *python*."""
    code = "import sysconfig; print(sysconfig.get_path('include'))"
    include = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return Path(include.stdout.strip(), "Python.h").exists()
