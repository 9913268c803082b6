"""Settings that are changed on disk while a template has loaded them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dayfly.worker.settingsfile import QUIET_SECONDS, SettingsFile, find
from tests.worker.conftest import Clock


@pytest.fixture
def clock(clock_of: Callable[[str], Clock]) -> Clock:
    return clock_of("dayfly.worker.settingsfile")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the module `conf.full`, in a package that must not be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/__init__.py").write_text("raise AssertionError('it was imported')\n")
    path = tmp_path / "conf/full.py"
    path.write_text("DEBUG = True\n")
    return path


def looks(file: SettingsFile, clock: Clock, seconds: float) -> list[bool]:
    found = []
    end = clock.now + seconds
    while clock.now < end:
        clock.now += 0.5
        found.append(file.was_changed())
    return found


def test_change_is_told_once_and_when_it_is_over(path: Path, clock: Clock) -> None:
    file = SettingsFile("conf.full")
    assert not any(looks(file, clock, 5))

    path.write_text("DEBUG = Fal")
    assert not any(looks(file, clock, QUIET_SECONDS - 0.5))
    path.write_text("DEBUG = False\n")
    assert not any(looks(file, clock, QUIET_SECONDS - 0.5))

    assert looks(file, clock, 5).count(True) == 1


def test_file_that_is_gone_is_waited_for(path: Path, clock: Clock) -> None:
    file = SettingsFile("conf.full")
    path.unlink()
    assert not any(looks(file, clock, 10))

    path.write_text("DEBUG = None  # anew\n")

    assert looks(file, clock, 5).count(True) == 1


def test_change_that_was_taken_back_is_none(path: Path, clock: Clock) -> None:
    file = SettingsFile("conf.full")
    kept = path.rename(path.with_suffix(".kept"))
    path.write_text("DEBUG = 0\n")
    looks(file, clock, 1)

    kept.rename(path)

    assert not any(looks(file, clock, 10))


def test_what_a_template_is_about_to_load_is_known(path: Path, clock: Clock) -> None:
    file = SettingsFile("conf.full")
    path.write_text("DEBUG = False\n")

    file.take()

    assert not any(looks(file, clock, 10))


def test_package_is_found_too(path: Path) -> None:
    assert find("conf.full") == path
    assert find("conf") == path.parent / "__init__.py"


def test_settings_that_are_no_file_never_change(path: Path, clock: Clock) -> None:
    file = SettingsFile("conf.made_up")

    assert file.path is None
    assert not any(looks(file, clock, 5))
