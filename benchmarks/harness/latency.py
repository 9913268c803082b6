"""How long an idle worker takes to start a job, from just before enqueue() to the job's body."""

from __future__ import annotations

import time

from harness.contenders import Contender
from harness.figures import Figures, Spread
from harness.process import BenchError
from harness.progress import Progress

#: Whose idle loop is measured: the plain worker and bare fork have none.
WITH_IDLE_LOOP = ("dayfly-1", "dayfly-template-1", "db-worker", "rq")
#: How long the last jobs may take after the last was enqueued.
REST_SECONDS = 20


def measure_one(contender: Contender, count: int) -> Spread:
    """Return the latencies in seconds."""
    contender.prepare(0)
    processes = contender.start(1, drain=False)
    try:
        moments = contender.enqueue_slowly(count)
        deadline = time.monotonic() + REST_SECONDS
        while contender.stamps.count() < count + 1:
            for process in processes:
                process.check_alive()
            if time.monotonic() > deadline:
                raise BenchError(f"{contender.stamps.count()} of {count + 1} jobs ran")
            time.sleep(0.01)
    finally:
        contender.stop(processes)
    started = contender.stamps.read()
    contender.verify(count + 1)
    return Spread(
        tuple((started[number] - sent) / 1e9 for number, sent in enumerate(moments, start=1))
    )


def measure(
    count: int,
    contenders: dict[tuple[str, str], Contender],
    figures: Figures,
    progress: Progress,
) -> None:
    """Measure each contender that has an idle loop, once: each job is a sample of its own."""
    for (place, name), contender in contenders.items():
        if name not in WITH_IDLE_LOOP:
            continue
        progress.say(f"start latency: {name} on {place}, {count} jobs")
        try:
            figures.latencies[place, name] = measure_one(contender, count)
        except BenchError as error:
            figures.failures.append(f"The latency of {name} on {place} failed: {error}.")
            progress.warn(figures.failures[-1])
        progress.step()
