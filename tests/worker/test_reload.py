"""What --reload watches."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dayfly.worker.reload import LOOK_SECONDS, SourceWatch
from tests.worker.conftest import Clock


@pytest.mark.parametrize("follows", [True, False])
def test_module_that_is_imported_later_is_watched_when_asked(
    follows: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clock_of: Callable[[str], Clock],
) -> None:
    clock = clock_of("dayfly.worker.reload")
    name = f"imported_later_{follows}"
    file = tmp_path / f"{name}.py"
    file.touch()
    monkeypatch.syspath_prepend(tmp_path)
    watch = SourceWatch(follows_imports=follows)

    importlib.import_module(name)
    clock.now += LOOK_SECONDS
    assert watch.changed() is None
    os.utime(file, (1, 1))
    clock.now += LOOK_SECONDS

    assert watch.changed() == (str(file) if follows else None)
