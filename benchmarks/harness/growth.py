"""
How much the parent's private memory grows while its tasks leak one megabyte each.

RssAnon, since RSS also counts pages of files, and USS falls and rises with what children share.
The first tenth of the jobs is warm-up: a parent grows to its working size once.
"""

from __future__ import annotations

import time

from harness.contenders import Contender
from harness.figures import Figures, Growth
from harness.options import Options
from harness.process import BenchError, Process, status_bytes
from harness.progress import Progress

#: Contender -> how many tasks at a time. db_worker has no children: one for contrast.
MEASURED = {"dayfly-1": 2, "db-worker": 1}
SLOWEST_RATE = 20


def private_bytes_after(count: int, contender: Contender, process: Process, deadline: float) -> int:
    """Wait until *count* jobs have run; return RssAnon of the parent at that moment."""
    while contender.stamps.count() < count:
        process.check_alive()
        if time.monotonic() > deadline:
            raise BenchError(f"{contender.stamps.count()} of {count} jobs ran")
        time.sleep(0.02)
    found = status_bytes(process.pid, "RssAnon")
    if found is None:
        raise BenchError(f"{process.name} was gone when its memory was read")
    return found


def measure_one(contender: Contender, concurrency: int, jobs: int) -> Growth:
    """Run the leaking jobs, and look twice."""
    contender.prepare(jobs, "leak")
    deadline = time.monotonic() + 60 + jobs / SLOWEST_RATE
    processes = contender.start(concurrency, drain=False)
    try:
        early = private_bytes_after(jobs // 10, contender, processes[0], deadline)
        late = private_bytes_after(jobs, contender, processes[0], deadline)
    finally:
        contender.stop(processes)
    contender.verify(jobs)
    return Growth(jobs, early, late)


def measure(
    options: Options,
    contenders: dict[tuple[str, str], Contender],
    figures: Figures,
    progress: Progress,
) -> None:
    """Measure dayfly, and for contrast a worker whose tasks run in its own process."""
    for (place, name), contender in contenders.items():
        if name not in MEASURED:
            continue
        isolated = name.startswith("dayfly")
        jobs = options.leaking_jobs if isolated else options.leaking_jobs_in_process
        progress.say(f"growth of the parent: {name} on {place}, {jobs} leaks of 1 MB")
        try:
            figures.growths[place, name] = measure_one(contender, MEASURED[name], jobs)
        except BenchError as error:
            figures.failures.append(f"The growth of {name} on {place} failed: {error}.")
            progress.warn(figures.failures[-1])
        progress.step()
