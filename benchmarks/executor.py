#!/usr/bin/env python3
"""Measure dayfly's executor against other pools, side by side: python3 benchmarks/executor.py --help."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bench_environment


def run() -> int:
    """Measure; return the exit code."""
    bench_environment.check_machine()
    from harness.executor import options

    chosen = options.parse(sys.argv[1:])
    bench_environment.enter(Path(__file__).resolve())
    from harness.executor.main import main

    return main(chosen)


if __name__ == "__main__":
    with bench_environment.one_sentence_errors():
        sys.exit(run())
