from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dayfly.executor import Executor
from tests.helpers import children_of, eventually, open_fds, threads


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # xdist's workers have a thread of their own, which CPython warns about at each fork.
    if "PYTEST_XDIST_WORKER" in os.environ:
        for item in items:
            item.add_marker(
                pytest.mark.filterwarnings("default:.*multi-threaded:DeprecationWarning")
            )


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """No child, no open descriptor and no thread outlives a test."""
    before = children_of(), open_fds(), threads()

    yield

    def left() -> tuple[set[int], dict[int, str], set[int]]:
        now = open_fds()
        return (
            children_of() - before[0],
            {fd: target for fd, target in now.items() if before[1].get(fd) != target},
            threads() - before[2],
        )

    try:
        eventually(lambda: not any(left()), within=3.0)
    except AssertionError:
        children, descriptors, own_threads = left()
        pytest.fail(f"left behind: {children=}, {descriptors=}, {own_threads=}")


@pytest.fixture
def executor() -> Iterator[Executor]:
    """One call at a time, each in a child of its own, none ahead."""
    with Executor(standby=0) as one:
        yield one
