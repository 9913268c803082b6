"""
What a host does: load the application, make the pool, measure, write down what was found.

The order is JSON: contender, parent ("small" or "large"), seconds, with_memory, workspace, result.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_executor import work
from bench_executor.contenders import CONCURRENCY, CONTENDERS, MODULES, Contender
from bench_executor.pools import STUCK_SECONDS, CallFailed, Pool

#: A wait of a second that takes so long says that nothing ran on this machine meanwhile.
STANDSTILL_SECONDS = 4.0
MOST_STANDSTILLS = 3


def main(text: str) -> None:
    """Obey *text*."""
    logging.basicConfig()
    order = json.loads(text)
    contender = CONTENDERS[order["contender"]]
    module = MODULES[order["parent"]]
    if contender.parent_loads:
        importlib.import_module(module)
    pool = contender.build(module)
    measured, standstills = rate(pool, contender, order["seconds"])
    found: dict[str, Any] = {"rate": measured, "standstills": standstills}
    if order["with_memory"]:
        found |= tree(pool, contender, order["workspace"])
        found["looks"] = looks(pool, 1 if contender.imports_itself else 3)
    Path(order["result"]).write_text(json.dumps(found))
    pool.close()


def rate(pool: Pool, contender: Contender, seconds: float) -> tuple[float, int]:
    """
    Return how many calls were done per second, in the parent's eyes, and how often the machine stood still.

    The first calls are not counted. A few more than can run are always submitted. It ends with the
    first call after *seconds*, and not before as many were counted as were left out. When the machine
    stood still meanwhile (virtual machines do), it begins anew.
    """
    slow = contender.imports_itself
    warm_up = 2 * CONCURRENCY if slow else 20
    outstanding = (2 if slow else 8) * CONCURRENCY
    for _ in range(outstanding):
        pool.submit("nothing")
    counted, began, standstills = -warm_up, 0.0, 0
    while True:
        asked = time.monotonic()
        done = len(pool.take(1.0))
        now = time.monotonic()
        for _ in range(done):
            pool.submit("nothing")
        counted += done
        if now - asked > STANDSTILL_SECONDS and standstills < MOST_STANDSTILLS:
            counted, began, standstills = -warm_up, 0.0, standstills + 1
        elif not began and counted >= 0:
            began, counted = now, 0
        elif began and done and now - began >= seconds and counted >= warm_up:
            break
    while outstanding:
        outstanding -= len(take(pool))
    return counted / (now - began), standstills


def take(pool: Pool) -> list[Any]:
    """Return the values of some calls; raise when none is done for long."""
    deadline = time.monotonic() + STUCK_SECONDS
    while not (found := pool.take(1.0)):
        if time.monotonic() > deadline:
            message = f"no call was done in {STUCK_SECONDS:.0f} s"
            raise CallFailed(message)
    return found


def tree(pool: Pool, contender: Contender, workspace: str) -> dict[str, Any]:
    """Read the memory of all processes while two calls wait and as many children as wanted stand by."""
    directory = Path(tempfile.mkdtemp(dir=workspace))
    for _ in range(CONCURRENCY):
        pool.submit("hold", str(directory))
    deadline = time.monotonic() + STUCK_SECONDS
    while True:
        pool.take(0.05)
        held = [int(path.name) for path in directory.iterdir()]
        standby = pool.standby_pids()
        if len(held) == CONCURRENCY and len(standby) == contender.standby:
            # One that is just leaving is counted, and may be gone before it is read.
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                found = memory_of(held, standby)
                break
        if time.monotonic() > deadline:
            message = f"{len(held)} calls run, {len(standby)} children stand by: too few"
            raise CallFailed(message)
    (directory / work.GO).touch()
    outstanding = CONCURRENCY
    while outstanding:
        outstanding -= len(take(pool))
    return found


def memory_of(held: list[int], standby: list[int]) -> dict[str, Any]:
    """Read what all processes hold now, and the children that wait in a call or stand by."""
    pids = [os.getpid(), *descendants(os.getpid())]
    return {
        "processes": len(pids),
        "tree_pss": sum(work.bytes_of(pid, "Pss") for pid in pids),
        "parent_pss": work.bytes_of("self", "Pss"),
        "held_uss": statistics.median(work.private_bytes(pid) for pid in held),
        "standby_uss": max((work.private_bytes(pid) for pid in standby), default=None),
    }


def looks(pool: Pool, count: int) -> dict[str, float]:
    """Have children look at themselves, one after the other; return the medians."""
    found = []
    for _ in range(count):
        pool.submit("look")
        found += take(pool)
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def descendants(pid: int) -> list[int]:
    """Return all living processes below *pid*, whatever group they are in. Source: proc(5), stat."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] not in "ZX":
            parents[int(entry.name)] = int(fields[1])
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found |= new
    return sorted(found)
