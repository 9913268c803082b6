"""A progress bar for long work on a terminal, where tqdm is installed (dayfly[progress])."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(total: Callable[[], int | None], *, unit: str) -> Iterator[Callable[[int], None]]:
    """
    Show how much of *total* is done: give a function to call with how many more are.

    *total* is asked on a terminal only; None is for work without an end. A worker that has none
    must not hold what draws the bar.
    """
    count = total() if sys.stderr is not None and sys.stderr.isatty() else None
    if count is None:
        yield _show_nothing
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield _show_nothing
        return
    with tqdm(total=count, unit=unit) as bar:

        def update(done: int) -> None:
            bar.update(done)

        yield update


def _show_nothing(done: int) -> None:
    """There is nobody who looks, or nothing to look with."""
