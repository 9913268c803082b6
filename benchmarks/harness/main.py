"""One run: find the servers, build the contenders, measure, print, write."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from harness import growth, latency, report, throughput
from harness.contenders import Contender, build
from harness.figures import Figures
from harness.options import Options
from harness.progress import Progress
from harness.servers import Servers


def leave(signum: int, frame: FrameType | None) -> None:
    """Turn SIGTERM into an exception, so that workers are stopped and databases dropped."""
    sys.exit(128 + signum)


def places_of(name: str, options: Options) -> tuple[str, ...]:
    """Return where a contender is measured."""
    return ("redis",) if name == "rq" else options.databases


def build_all(
    options: Options, servers: Servers, workspace: Path, figures: Figures
) -> dict[tuple[str, str], Contender]:
    """Return the contenders by place and name; say which are left out, and why."""
    figures.missing += [sentence for sentence in servers.missing if concerns(sentence, options)]
    found: dict[tuple[str, str], Contender] = {}
    for place in (*options.databases, "redis"):
        for name in options.only:
            if place not in places_of(name, options) or not servers.has(place):
                continue
            contender = build(name, place, servers, workspace)
            reason = contender.missing()
            if reason is None:
                found[place, name] = contender
            elif reason not in figures.missing:
                figures.missing.append(reason)
    return found


def concerns(sentence: str, options: Options) -> bool:
    """Tell whether a missing server would have been used at all."""
    if sentence.startswith("Redis"):
        return "rq" in options.only
    return "postgresql" in options.databases and set(options.only) != {"rq"}


def count_steps(options: Options, contenders: dict[tuple[str, str], Contender]) -> int:
    """Return how many measurements there will be."""
    total = 0
    if "throughput" in options.parts:
        total += options.rounds * len(throughput.cells(options, contenders))
    if "latency" in options.parts:
        total += sum(name in latency.WITH_IDLE_LOOP for _, name in contenders)
    if "growth" in options.parts:
        total += sum(name in growth.MEASURED for _, name in contenders)
    return total


def measure(options: Options, servers: Servers, workspace: Path) -> Figures:
    """Measure all parts."""
    figures = Figures()
    contenders = build_all(options, servers, workspace, figures)
    for sentence in figures.missing:
        print(f"!! {sentence}", file=sys.stderr, flush=True)
    progress = Progress(count_steps(options, contenders))
    try:
        if "throughput" in options.parts:
            throughput.measure(options, contenders, figures, progress)
        if "latency" in options.parts:
            latency.measure(options.latency_jobs, contenders, figures, progress)
        if "growth" in options.parts:
            growth.measure(options, contenders, figures, progress)
    finally:
        progress.close()
        for contender in contenders.values():
            contender.tidy()
    return figures


def main(options: Options) -> int:
    """Return 0 if every measurement came about; goals that are missed are no failure."""
    signal.signal(signal.SIGTERM, leave)
    if options.output is not None:
        report.prose(options.output)  # learn now, not in half an hour, that it cannot be written
    with tempfile.TemporaryDirectory(prefix="dayfly-bench-") as directory:
        workspace = Path(directory)
        with Servers(workspace) as servers:
            figures = measure(options, servers, workspace)
            text = report.render(options, servers, figures)
    print(f"\n{text}\n")
    if options.output is None:
        print("Nothing was written: only a full run, or one with --output, rewrites the tables.")
    elif figures.missing and not options.output_is_asked_for:
        print("Nothing was written, as contenders were left out: --output writes all the same.")
    else:
        report.write(options.output, text)
        print(f"Written to {options.output}.")
    return 1 if figures.failures else 0
