"""One run: measure, print, write."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path

from harness import report as document
from harness.executor import report, rounds
from harness.executor.options import Options
from harness.main import leave
from harness.progress import Progress


def main(options: Options) -> int:
    """Return 0 if every measurement came about; goals that are missed are no failure."""
    signal.signal(signal.SIGTERM, leave)
    if options.output is not None:
        document.prose(options.output, report.BEGIN)  # learn now that it cannot be written
    found = rounds.Found()
    with tempfile.TemporaryDirectory(prefix="dayfly-bench-") as directory:
        rounds.measure(options, found, Path(directory), Progress(0))
    for cell, seconds in found.took.items():
        print(f"{seconds:6.1f} s  {rounds.name_of(cell)}")
    text = report.render(options, found)
    print(f"\n{text}\n")
    if options.output is None:
        print("Nothing was written: only a full run, or one with --output, rewrites the tables.")
    elif found.missing and not options.output_is_asked_for:
        print("Nothing was written, as contenders were left out: --output writes all the same.")
    else:
        document.write(options.output, text, report.BEGIN)
        print(f"Written to {options.output}.")
    return 1 if found.failures else 0
