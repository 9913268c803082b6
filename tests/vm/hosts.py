"""
Hosts of an executor, each a process of its own: it moves itself and its children between cgroups.

    python -m tests.vm.hosts FUNCTION JSON  ->  calls it with what JSON says, prints what it returns
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from dayfly.executor import AfterCalls, Call, Executor, Limits, RunReport, Terms
from dayfly.executor.call import resolve
from tests import calls
from tests.helpers import alive, collect, eventually

#: Enough for a machine that emulates the guest.
WITHIN_SECONDS = 120.0


def make_call(target: str, arguments: list[Any], memory_bytes: int | None) -> Call:
    limits = Limits(memory_bytes=memory_bytes, timeout_seconds=WITHIN_SECONDS)
    return Call.of(resolve(target), *arguments, limits=limits)


def make_executor(launcher: str, *, concurrency: int = 1, reuse: bool = False) -> Executor:
    return Executor(
        launcher=launcher,
        concurrency=concurrency,
        standby=0,
        policy=AfterCalls(0 if reuse else 1),
        terms=Terms(use_cgroup=True),
    )


def told(report: RunReport) -> dict[str, Any]:
    """Return what the tests ask of a report."""
    return {
        "outcome": report.outcome,
        "cause": report.cause,
        "message": report.message,
        "pid": report.child_pid,
        "signal": report.signal,
        "output": report.output.decode(errors="replace"),
    }


def groups() -> dict[str, Any]:
    """Return where this process is, and what is below the cgroup that it began in."""
    own = Path("/proc/self/cgroup").read_text().strip().removeprefix("0::")
    service = Path(os.environ["DAYFLY_TEST_CGROUP"])
    return {
        "own": Path(own).name,
        "below": sorted(path.name for path in service.iterdir() if path.is_dir()),
    }


def serve(
    orders: list[tuple[str, list[Any], int | None]],
    launcher: str = "fork",
    concurrency: int = 1,
    reuse: bool = False,
) -> dict[str, Any]:
    """Run calls (target, arguments, limit), as many at a time as *concurrency* says."""
    made = [make_call(*order) for order in orders]
    found: list[RunReport] = []
    with make_executor(launcher, concurrency=concurrency, reuse=reuse) as executor:
        for call in made:
            executor.submit(call)
        found = collect(executor, len(made), within=WITHIN_SECONDS)
        before_close = groups()
    by_id = {report.call_id: told(report) for report in found}
    reports = [by_id[call.call_id] for call in made]
    return {"reports": reports, "before close": before_close, "after close": groups()}


def kill_one(
    launcher: str, memory_bytes: int | None, directory: str, beside: int | None = None
) -> dict[str, Any]:
    """Kill a child that waits, just after another passed its limit of *beside* bytes, if that is given."""
    mark = Path(directory, "mark")
    with make_executor(launcher, concurrency=2) as executor:
        executor.submit(make_call("tests.calls.waits", [str(mark)], memory_bytes))
        eventually(lambda: executor.poll(0.05) or mark.exists(), within=WITHIN_SECONDS)
        others = []
        if beside is not None:
            executor.submit(make_call("tests.limit_calls.holds_private", [200], beside))
            others = [told(report) for report in collect(executor, 1, within=WITHIN_SECONDS)]
        os.kill(int(mark.read_text()), signal.SIGKILL)
        (report,) = collect(executor, 1, within=WITHIN_SECONDS)
    return {"killed": told(report), "others": others}


def leave_a_daemon(launcher: str, memory_bytes: int, directory: str) -> dict[str, Any]:
    """Run a call whose daemon passes the limit; tell whether the daemon lives on."""
    mark = Path(directory, "daemon")
    order = ("tests.limit_calls.leaves_a_daemon_that_holds", [200, str(mark)], memory_bytes)
    found = serve([order], launcher)
    daemon = int(mark.read_text())
    eventually(lambda: not alive(daemon), what="the end of the daemon")
    return found


def share_the_cgroup() -> dict[str, Any]:
    """Run a call with a limit while a process that is not ours lives in the cgroup."""
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("dayfly").addHandler(handler)
    service = Path(os.environ["DAYFLY_TEST_CGROUP"])
    # Of nobody's family: by a shell that ends, as PID 1 takes it in.
    code = "sleep 1000 >/dev/null 2>&1 & echo $!"
    stranger = int(subprocess.run(["sh", "-c", code], capture_output=True, check=True).stdout)
    try:
        found = serve([("tests.limit_calls.holds_private", [200], 60_000_000)])
        return {**found, "heard": heard, "controllers": _read(service / "cgroup.subtree_control")}
    finally:
        os.kill(stranger, signal.SIGKILL)


def _read(path: Path) -> str:
    return path.read_text().strip()


def main() -> None:
    name, arguments = sys.argv[1:]
    calls.MIB  # noqa: B018  # loaded before a fork, as the hosts of users load what they call
    print(json.dumps(globals()[name](**json.loads(arguments))))


if __name__ == "__main__":
    main()
