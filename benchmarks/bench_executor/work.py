"""What the children do. Alone it is the small application; application.py puts 300 MB around it."""

from __future__ import annotations

import gc
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: The file that ends `hold`.
GO = "go"
#: Of the application's objects, that many are read by `look`.
READ_OBJECTS = 10_000


def nothing() -> None:
    """Do nothing."""


def hold(directory: str) -> None:
    """Say that this child is here, and stay until told to go on."""
    here = Path(directory)
    (here / str(os.getpid())).touch()
    while not (here / GO).exists():
        time.sleep(0.02)


def look(objects: Sequence[dict[str, Any]] = ()) -> dict[str, int]:
    """Return what this child holds alone: as it is, after a collection, after ordinary work."""
    found = {"at_start": private_bytes()}
    gc.collect()
    found["collected"] = private_bytes()
    kept = ordinary_work(objects)
    found["worked"] = private_bytes()
    del kept
    return found


def ordinary_work(objects: Sequence[dict[str, Any]]) -> object:
    """Read objects that were there before, make many small ones, keep what was counted."""
    names = [str(one["name"]).upper() for one in objects[:READ_OBJECTS]]
    rows = [{"number": n, "text": f"row {n}", "half": n / 2} for n in range(5_000)]
    again = json.loads(json.dumps(rows))
    words = Counter(word for row in again for word in row["text"].split())
    return names, again, words


def private_bytes(pid: int | str = "self") -> int:
    """Return what a process shares with nobody (USS). Source: proc(5), smaps_rollup."""
    return sum(
        bytes_of(pid, name) for name in ("Private_Clean", "Private_Dirty", "Private_Hugetlb")
    )


def bytes_of(pid: int | str, field: str) -> int:
    """Return one field of /proc/pid/smaps_rollup in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024
    return 0
