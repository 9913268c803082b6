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


def test_file_with_a_slip_of_the_pen_waits_until_it_is_mended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clock_of: Callable[[str], Clock],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A worker that starts again with it would end, and whoever mends it would have to notice."""
    clock = clock_of("dayfly.worker.reload")
    slipped, other = tmp_path / "edited_soon.py", tmp_path / "edited_too.py"
    monkeypatch.syspath_prepend(tmp_path)
    for file in (slipped, other):
        file.touch()
        importlib.import_module(file.stem)
    watch = SourceWatch()

    def changed() -> str | None:
        clock.now += LOOK_SECONDS
        return watch.changed()

    slipped.write_text("def f(:\n")
    os.utime(slipped, (1, 1))
    os.utime(other, (1, 1))
    assert [changed(), changed()] == [None, None]
    assert caplog.text.count(f"{slipped} was changed, and the worker goes on without") == 1
    slipped.write_text("def f(): ...\n")
    os.utime(slipped, (2, 2))

    assert changed() in {str(slipped), str(other)}
