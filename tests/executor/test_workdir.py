"""The working directory is a path: a deployment under a running executor."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dayfly.executor import AfterCalls, Call, Executor, Outcome, Terms, load_value
from dayfly.executor import workdir as workdir_module
from tests import calls
from tests.helpers import collect

CALL = Call.of(calls.about_place)


@pytest.fixture(autouse=True)
def kept_import_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    path = sys.path[:]
    yield
    sys.path[:] = path


def release(directory: Path, version: int) -> Path:
    """Make a release with a module of that version."""
    directory.mkdir()
    (directory / "release_module.py").write_text(f"VERSION = {version}\n")
    return directory


def run_in(executor: Executor, call: Call) -> object:
    again = Call(target=call.target, payload=call.payload, codec=call.codec, title=call.title)
    executor.submit(again)
    (report,) = collect(executor, 1)
    assert report.outcome is Outcome.RETURNED, report.message
    return load_value(report)


@pytest.mark.parametrize("policy", [AfterCalls(1), AfterCalls(0)], ids=["fresh", "kept"])
def test_moved_symlink_is_followed_by_the_next_call(tmp_path: Path, policy: AfterCalls) -> None:
    one, two = release(tmp_path / "one", 1), release(tmp_path / "two", 2)
    current = tmp_path / "current"
    current.symlink_to(one)
    with Executor(policy=policy, terms=Terms(workdir=str(current))) as executor:
        before = run_in(executor, CALL)

        (tmp_path / "new").symlink_to(two)
        (tmp_path / "new").rename(current)
        after = run_in(executor, CALL)

    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert (before["cwd"], before["pwd"]) == (str(one), str(current))
    assert (after["cwd"], after["pwd"]) == (str(two), str(current))


def test_imports_through_the_moved_symlink_find_the_new_code(tmp_path: Path) -> None:
    one, two = release(tmp_path / "one", 1), release(tmp_path / "two", 2)
    current = tmp_path / "current"
    current.symlink_to(one)
    sys.path.insert(0, str(one))  # as Python does with a script's directory
    with Executor(terms=Terms(workdir=str(current))) as executor:
        assert run_in(executor, Call.of(calls.imports, "release_module")) == 1

        (tmp_path / "new").symlink_to(two)
        (tmp_path / "new").rename(current)

        assert run_in(executor, Call.of(calls.imports, "release_module")) == 2
    assert str(current) in sys.path


def test_directory_removed_and_made_anew_is_entered_anew(tmp_path: Path) -> None:
    home = release(tmp_path / "home", 1)
    sys.path.insert(0, "")
    with Executor(terms=Terms(workdir=str(home))) as executor:
        executor.warm_up(freeze=False)
        assert run_in(executor, Call.of(calls.imports, "release_module")) == 1

        shutil.rmtree(home)
        release(home, 2)
        # Another module as well: importers remember what a directory held.
        (home / "brand_new.py").write_text("VERSION = 3\n")

        assert run_in(executor, Call.of(calls.imports, "release_module")) == 2
        assert run_in(executor, Call.of(calls.imports, "brand_new")) == 3
        assert run_in(executor, Call.of(os.getcwd)) == str(home)


def test_directory_that_comes_back_late_is_waited_for(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with Executor(standby=1, terms=Terms(workdir=str(home), workdir_wait_seconds=20)) as executor:
        executor.warm_up(freeze=False)
        home.rmdir()
        executor.submit(Call.of(os.getcwd))
        assert executor.poll(0.2) == []

        home.mkdir()
        (report,) = collect(executor, 1)

    assert load_value(report) == str(home)


def test_directory_gone_for_good_is_a_failure_that_says_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with Executor(terms=Terms(workdir=str(home), workdir_wait_seconds=0.1)) as executor:
        home.rmdir()
        executor.submit(Call.of(os.getcwd))
        (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RAISED
    assert report.failure is not None
    assert report.failure.exception_class_path == "dayfly.executor.errors.WorkdirGone"
    assert str(home) in report.message
    assert "Was the release directory removed?" in report.message


def test_without_a_workdir_children_stay_where_the_parent_is() -> None:
    with Executor(standby=0) as executor:
        assert run_in(executor, Call.of(os.getcwd)) == os.getcwd()


def test_shell_symlink_is_kept_in_the_unresolved_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "one")
    monkeypatch.chdir(tmp_path / "current")

    monkeypatch.setenv("PWD", str(tmp_path / "current"))
    assert workdir_module.unresolved() == str(tmp_path / "current")
    assert workdir_module.unresolved("sub/../x") == str(tmp_path / "current" / "x")

    monkeypatch.setenv("PWD", "/")  # a lie, as after chdir
    assert workdir_module.unresolved() == str(tmp_path / "one")

    monkeypatch.setenv("PWD", str(tmp_path / "gone"))
    assert workdir_module.unresolved() == str(tmp_path / "one")


def test_relative_and_empty_import_paths_are_made_absolute(tmp_path: Path) -> None:
    sys.path[:] = ["", "lib", "/elsewhere", *sys.path]

    workdir_module.route_imports_through(str(tmp_path))

    assert sys.path[:3] == [str(tmp_path), str(tmp_path / "lib"), "/elsewhere"]


def test_identity_of_nothing_is_none(tmp_path: Path) -> None:
    assert workdir_module.identity(str(tmp_path / "gone")) is None
    assert workdir_module.identity(str(tmp_path)) == workdir_module.identity(f"{tmp_path}/.")
