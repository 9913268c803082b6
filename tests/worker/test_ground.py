"""What must be in order before the first fork."""

from __future__ import annotations

import os
import re
import shutil
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from django.core.cache import caches
from django.db import connection, connections, transaction

from dayfly.worker import ground


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and the way back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    return tmp_path


@pytest.mark.django_db(transaction=True)
def test_open_transaction_is_refused() -> None:
    ground.refuse_open_transactions()

    with transaction.atomic(), pytest.raises(ground.CannotStart, match=r"transaction\.atomic"):
        ground.refuse_open_transactions()


@pytest.mark.django_db(transaction=True)
def test_autocommit_that_the_host_switched_off_is_refused() -> None:
    transaction.set_autocommit(False)
    try:
        with pytest.raises(ground.CannotStart, match=r"set_autocommit\(True\)"):
            ground.refuse_open_transactions()
    finally:
        transaction.set_autocommit(True)


@pytest.mark.django_db
def test_tables_that_are_there_are_found() -> None:
    ground.refuse_missing_tables("default")


def test_database_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = another_sqlite(monkeypatch, "file:memorydb_default?mode=memory&cache=shared")

    with pytest.raises(ground.CannotStart, match="SQLite in memory"):
        ground.prepare_sqlite("another")

    assert wrapper.connection is None

    ground.prepare_sqlite("another", may_be_in_memory=True)


def test_sqlite_gets_an_absolute_name_a_log_and_patience(
    here: Path, monkeypatch: pytest.MonkeyPatch, django_db_blocker: object
) -> None:
    wrapper = another_sqlite(monkeypatch, "file.sqlite3")

    with django_db_blocker.unblock():  # type: ignore[attr-defined]
        ground.prepare_sqlite("another")
        found = [pragma(wrapper, name) for name in ("journal_mode", "busy_timeout")]
        wrapper.close()
        again = pragma(wrapper, "busy_timeout")
        wrapper.close()

    assert wrapper.settings_dict["NAME"] == str(here / "file.sqlite3")
    assert found == ["wal", 30_000]
    assert again == 30_000


@pytest.mark.parametrize(
    "name", ["file:my%20file.sqlite3?mode=rwc", "file:{here}/my%20file.sqlite3", "my file.sqlite3"]
)
def test_sqlite_is_found_by_a_uri_too(
    here: Path, monkeypatch: pytest.MonkeyPatch, django_db_blocker: object, name: str
) -> None:
    workdir = here / "a directory"
    workdir.mkdir()
    monkeypatch.chdir(workdir)
    wrapper = another_sqlite(monkeypatch, name.format(here=quote(str(workdir))))

    with django_db_blocker.unblock():  # type: ignore[attr-defined]
        ground.prepare_sqlite("another")
        wrapper.close()
        monkeypatch.chdir("/")
        assert pragma(wrapper, "journal_mode") == "wal"
        wrapper.close()

    assert [each.name for each in workdir.iterdir()] == ["my file.sqlite3"]


def another_sqlite(monkeypatch: pytest.MonkeyPatch, name: str) -> object:
    settings = connections.configure_settings(
        {
            "default": connections.databases["default"],
            "another": {"ENGINE": "django.db.backends.sqlite3", "NAME": name},
        }
    )["another"]
    monkeypatch.setitem(connections.databases, "another", settings)
    wrapper = connections.create_connection("another")
    monkeypatch.setattr(connections._connections, "another", wrapper, raising=False)
    return wrapper


def pragma(wrapper: object, name: str) -> object:
    with wrapper.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.execute(f"PRAGMA {name}")
        return cursor.fetchone()[0]


def test_threads_are_named(caplog: pytest.LogCaptureFixture) -> None:
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait, name="meddler")
    thread.start()
    try:
        ground.warn_of_threads()
    finally:
        leave.set()
        thread.join()

    # Other tests may have left threads of theirs, as asgiref does.
    assert re.search(r"threads run besides the worker \(.*\bmeddler\b.*\)", caplog.text)


def test_caches_that_were_used_are_closed() -> None:
    first = caches["default"]

    ground.drop_caches()

    assert caches["default"] is not first


def test_working_directory_is_the_path_as_configured(here: Path) -> None:
    (here / "r1").mkdir()
    (here / "current").symlink_to("r1")

    directory = ground.WorkingDirectory(str(here / "current"))

    assert directory.path == str(here / "current")
    directory.come_back()


def test_worker_sits_in_the_root_and_comes_back(here: Path) -> None:
    directory = ground.WorkingDirectory(None)
    directory.leave()
    assert os.getcwd() == "/"

    directory.come_back()

    assert os.getcwd() == str(here)


def test_worker_visits_the_working_directory_and_goes_back(here: Path) -> None:
    directory = ground.WorkingDirectory(None)
    directory.leave()
    seen: list[str] = []

    directory.visit(lambda: seen.append(os.getcwd()))
    here.rename(here.with_name("gone"))
    directory.visit(lambda: seen.append(os.getcwd()))

    assert seen == [str(here), "/"]
    assert os.getcwd() == "/"
    here.with_name("gone").rename(here)
    directory.come_back()


@pytest.mark.parametrize(("make", "words"), [(False, "does not exist"), (True, "Not a directory")])
def test_working_directory_must_be_one(here: Path, make: bool, words: str) -> None:
    if make:
        (here / "it").touch()

    with pytest.raises(ground.CannotStart, match=words):
        ground.WorkingDirectory(str(here / "it"))


def test_directory_that_is_made_anew_was_replaced(here: Path) -> None:
    """Twenty times, as file systems like to give the new one the number of the old."""
    place = here / "place"
    place.mkdir()
    directory = ground.WorkingDirectory(str(place))
    for _ in range(20):
        assert not directory.was_replaced()
        shutil.rmtree(place)
        assert not directory.was_replaced()
        place.mkdir()
        assert directory.was_replaced()
        assert not directory.was_replaced()
    directory.come_back()


def test_worker_comes_back_from_where_it_was(here: Path) -> None:
    place = here / "place"
    place.mkdir()
    directory = ground.WorkingDirectory(str(place))

    directory.enter()
    assert (os.getcwd(), os.environ["PWD"]) == (str(place), str(place))
    directory.leave()
    assert os.getcwd() == "/"
    directory.come_back()

    assert (os.getcwd(), os.environ["PWD"]) == (str(here), str(here))


def test_symlink_that_moves_was_replaced(here: Path) -> None:
    for name in ("r1", "r2"):
        (here / name).mkdir()
    (here / "current").symlink_to("r1")
    directory = ground.WorkingDirectory(str(here / "current"))
    (here / "new").symlink_to("r2")
    (here / "new").replace(here / "current")

    assert directory.was_replaced()
    assert not directory.was_replaced()
    directory.come_back()


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="psycopg's pools")
def test_worker_does_without_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**connection.settings_dict["OPTIONS"], "pool": True}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    connection.close()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert connection.pool is not None

    ground.drop_pools()

    assert "pool" not in connection.settings_dict["OPTIONS"]
    assert connection.pool is None
    assert threading.active_count() == 1
