"""Huge pages, as the kernel counts them, in the process that children are forked from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dayfly.executor import Call, Executor, Outcome, Source
from dayfly.executor.hugepages import collapse_heap
from tests import calls
from tests.helpers import child_runs, children_of, collect

#: So much lies side by side that some of it can be collapsed.
hoard: list[bytes] = []
MEGABYTES = 24


def huge_bytes(pid: int) -> int:
    """Return what of a process's anonymous memory lies in huge pages (proc(5), smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("AnonHugePages:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel counts none")


def collapses() -> bool:
    hoard.extend(bytes(1_000) for _ in range(MEGABYTES * 1_000))
    return huge_bytes(os.getpid()) == 0 and collapse_heap() > 0


def huge_bytes_of_forker(launcher: str, huge_pages: bool) -> int:
    """Return what the process has from which a child was forked, while that child waits."""
    hoard.extend(bytes(1_000) for _ in range(MEGABYTES * 1_000))
    source = Source(preload=("tests.executor.heavy",), huge_pages=huge_pages)
    with Executor(launcher=launcher, source=source, standby=1) as executor:
        executor.warm_up(huge_pages=huge_pages)
        executor.submit(Call.of(calls.returns))
        (report,) = collect(executor, 1)
        assert report.outcome is Outcome.RETURNED, report.message
        (forker,) = {os.getpid()} if launcher == "fork" else children_of(os.getpid())
        return huge_bytes(forker)


@pytest.mark.parametrize("launcher", ["fork", "copy", "template"])
def test_heap_that_is_forked_lies_in_huge_pages_where_that_is_wanted(launcher: str) -> None:
    if not child_runs(collapses):
        pytest.skip("the kernel does not collapse, or uses huge pages by itself")

    assert child_runs(huge_bytes_of_forker, launcher, True) >= 4 << 20  # type: ignore[operator]
    assert child_runs(huge_bytes_of_forker, launcher, False) == 0
