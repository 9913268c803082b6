"""What a child copies to make objects, in a heap that is full of holes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dayfly.executor import Call, Executor, Outcome, holes, load_value, memory
from tests.helpers import child_runs, collect

#: Objects with holes between them.
swiss_cheese: list[bytes] = []


def bytes_to_make_1000(length: int) -> int:
    """Return what the child needed, in bytes, for 1,000 objects of that length."""
    before = memory.thorough()
    made = [bytes(length) for _ in range(1_000)]
    after = memory.thorough()
    assert before is not None
    assert after is not None
    assert before.uss_bytes is not None
    assert after.uss_bytes is not None
    return after.uss_bytes - before.uss_bytes - sum(map(sys.getsizeof, made))


def bytes_copied(length: int, huge_pages: bool) -> int:
    """Leave a hole on each of some thousand pages, and fork a child that makes objects of that size."""
    swiss_cheese.extend(bytes(length) for _ in range(12_000_000 // length))
    del swiss_cheese[:: 4_000 // length]
    with Executor(launcher="fork", standby=0) as executor:
        executor.warm_up(huge_pages=huge_pages)
        executor.submit(Call.of(bytes_to_make_1000, length))
        (report,) = collect(executor, 1)
    assert report.outcome is Outcome.RETURNED, report.message
    return load_value(report)


def bytes_filled_twice() -> tuple[int, int]:
    swiss_cheese.extend(bytes(100) for _ in range(100_000))
    del swiss_cheese[::40]
    return holes.fill(), holes.fill()


@pytest.mark.parametrize("length", [100, 1_000], ids=["pooled", "malloc"])
def test_children_make_objects_side_by_side(length: int) -> None:
    with_holes = child_runs(bytes_copied, length, False)
    filled = child_runs(bytes_copied, length, True)

    assert with_holes > 2 << 20  # type: ignore[operator]
    assert filled < 1 << 20  # type: ignore[operator]


def test_what_was_filled_has_no_holes() -> None:
    first, second = child_runs(bytes_filled_twice)  # type: ignore[misc]

    assert first > 2_500 * 100
    assert second < first / 2


def test_another_allocator_is_left_alone() -> None:
    """It has no pools: what is taken in search of them has a limit."""
    program = "from dayfly.executor import holes; print(holes._fill_pools())"

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONMALLOC": "malloc"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert int(done.stdout) < 5 << 20
