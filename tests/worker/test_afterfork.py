"""Connections after a fork: the child forgets them, and nobody says goodbye on them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, connections, transaction

from dayfly.worker import afterfork

pytestmark = [
    pytest.mark.django_db(transaction=True),
    # As the parent parts from SQLite before it forks, there is nothing to inherit.
    pytest.mark.skipif(
        "connections['default'].vendor == 'sqlite'", reason="SQLite is closed before each fork"
    ),
]


def in_child(function: Callable[[], Any]) -> Any:
    """Call *function* in a forked child, which leaves as ours do; return what it returned."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write_fd, json.dumps(function()).encode())
        except BaseException as error:
            os.write(write_fd, json.dumps(repr(error)).encode())
        finally:
            os._exit(0)
    os.close(write_fd)
    with open(read_fd) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)


@pytest.fixture
def session() -> Iterator[int]:
    """The number that the server gave our connection; the same afterwards."""
    connection.ensure_connection()
    before = session_id()
    yield before
    assert session_id() == before


def session_id() -> int:
    function = {"postgresql": "pg_backend_pid()", "mysql": "connection_id()"}[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}")
        return int(cursor.fetchone()[0])


def test_child_opens_a_connection_of_its_own(session: int) -> None:
    def child() -> int:
        afterfork.forget_inherited()
        assert connection.connection is None
        found = session_id()
        afterfork.close_connections()
        return found

    theirs = in_child(child)

    assert isinstance(theirs, int), theirs
    assert theirs != session


def test_child_that_uses_none_opens_none(session: int) -> None:
    def child() -> bool:
        afterfork.forget_inherited()
        afterfork.close_connections()
        return connection.connection is None

    assert in_child(child) is True


def test_child_knows_nothing_of_its_parents_transaction(session: int) -> None:
    def child() -> list[Any]:
        afterfork.forget_inherited()
        return [
            connection.in_atomic_block,
            connection.savepoint_ids,
            connection.run_on_commit,
            connection.needs_rollback,
        ]

    with transaction.atomic():
        transaction.on_commit(lambda: None)
        assert in_child(child) == [False, [], [], False]


def test_wrapper_that_forgot_looks_like_a_new_one() -> None:
    """What is set back is what Django sets in the beginning: it may come to set more."""
    fresh = type(connections["default"])({**connection.settings_dict}, "fresh")

    for name, value in afterfork._NEVER_CONNECTED.items():
        assert getattr(fresh, name) == value, name


def test_all_aliases_are_forgotten(session: int) -> None:
    def child() -> bool:
        afterfork.forget_inherited()
        return all(each.connection is None for each in connections.all(initialized_only=True))

    assert in_child(child) is True
