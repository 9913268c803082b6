"""An application of 300 MB: Python objects that are built when it is imported. Its functions are those of work.py."""

from __future__ import annotations

import time

from bench_executor import work

_began = time.monotonic()
#: About 420 bytes each.
RECORDS = [
    {
        "number": n,
        "name": f"name of record number {n}",
        "price": n * 0.5,
        "words": f"{n} some more words of record {n}",
    }
    for n in range(720_000)
]
LOAD_SECONDS = time.monotonic() - _began


def nothing() -> None:
    """Do nothing, in a process that has the application."""


def hold(directory: str) -> None:
    """See work.hold."""
    work.hold(directory)


def look() -> dict[str, int]:
    """See work.look."""
    return work.look(RECORDS)
