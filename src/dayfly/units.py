"""Both sides: plain data. How figures are written for people."""

from __future__ import annotations

MEGABYTE = 1_000_000


def megabytes(size_bytes: int | None) -> str:
    """Write a size in megabytes of 1,000,000 bytes, "48.2MB"; "?" where it is unknown."""
    return "?" if size_bytes is None else f"{size_bytes / MEGABYTE:.1f}MB"


def growth(start_bytes: int | None, end_bytes: int | None) -> str:
    """Write a change in megabytes with its sign, "+3.9MB"."""
    if start_bytes is None or end_bytes is None:
        return "?"
    return f"{(end_bytes - start_bytes) / MEGABYTE:+.1f}MB"


def seconds(duration: float | None) -> str:
    """Write a duration, "1.24s"."""
    return "?" if duration is None else f"{duration:.2f}s"


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number of things: counted(1, "task") is "1 task", counted(2, "task") "2 tasks"."""
    return f"{number} {one if number == 1 else many or one + 's'}"
