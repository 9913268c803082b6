"""
Run the example, from a bare Python: makes an environment in `.venv-example/`, then `manage.py demo`.

    python3 example_project/run.py
    python3 example_project/run.py --django 5.2     with another Django, in an environment of its own
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / ".ci"))

import environment


def main():
    """Make the environment and show the shop at work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--django", default="", metavar="X.Y", help="run with this Django, for example 5.2"
    )
    django = parser.parse_args().django
    name = f"example-django{django}" if django else "example"
    python = environment.prepare(name, groups=["example"], django=django)
    ended = subprocess.run(
        [python, "manage.py", "demo"],
        cwd=Path(__file__).resolve().parent,
        # Whoever reads the commands that it prints is here, and not in its directory.
        env=environment.environment_variables(SHOP_STARTED_IN=str(Path.cwd())),
    )
    return ended.returncode


if __name__ == "__main__":
    with environment.one_sentence_errors():
        sys.exit(main())
