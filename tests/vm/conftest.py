from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.vm.services import Service

SWAP = b"/dev/vda"


@pytest.fixture
def service() -> Iterator[Callable[..., Service]]:
    """Make services, which are gone after the test."""
    made: list[Service] = []

    def make(**how: object) -> Service:
        made.append(Service(**how))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def swap() -> Iterator[None]:
    """Let the machine swap."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.swapon(SWAP, 0) == 0, f"swapon: error {ctypes.get_errno()}"
    assert SWAP.decode() in Path("/proc/swaps").read_text()
    yield
    assert libc.swapoff(SWAP) == 0, f"swapoff: error {ctypes.get_errno()}"
