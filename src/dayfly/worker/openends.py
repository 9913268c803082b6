"""
Child side: end the transactions that a task leaves open.

A child lives on until its outcome is recorded, and the worker records it: a transaction that is
open by then may hold what the worker needs for that (on SQLite the one lock of the whole file),
and both would wait for ever. Django's own requests end with their connections in order, too.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import Error

#: Active, in a transaction, in one that failed; the numbers are libpq's, and both psycopgs'.
_IN_TRANSACTION = (1, 2, 3)


def open_transactions() -> set[str]:
    """Return the databases of this thread that are in a transaction, or may be."""
    return {
        wrapper.alias
        for wrapper in connections.all(initialized_only=True)
        if wrapper.connection is not None and _is_open(wrapper) is not False
    }


def end_transactions(path: str, *, but: set[str]) -> None:
    """
    Roll back what the task of that path left open, and say so in its output.

    *but*: what was open before it. Never raises: the task is over.
    """
    for alias in open_transactions() - but:
        wrapper = connections[alias]
        if _is_open(wrapper):
            sys.stderr.write(
                f"{path} left a transaction open on the database {alias!r}: it is rolled back.\n"
            )
            with suppress(Error):
                wrapper.close()  # which ends it, whoever began it
            del connections[alias]  # a wrapper that is closed within atomic() is of no use any more
        else:
            _roll_back(wrapper)


def _is_open(wrapper: BaseDatabaseWrapper) -> bool | None:
    """Tell whether it is in a transaction, begun by Django or by a statement of the task's; None: unknown."""
    if wrapper.in_atomic_block or wrapper.autocommit != wrapper.settings_dict["AUTOCOMMIT"]:
        return True
    raw: Any = wrapper.connection
    with suppress(wrapper.Database.Error):  # type: ignore[attr-defined]  # closed under Django's feet
        if wrapper.vendor == "sqlite":
            return bool(raw.in_transaction)
        if wrapper.vendor == "postgresql":
            return raw.info.transaction_status in _IN_TRANSACTION
    return None


def _roll_back(wrapper: BaseDatabaseWrapper) -> None:
    with suppress(Error):
        try:
            with wrapper.wrap_database_errors:
                wrapper.connection.rollback()
        except Error:
            wrapper.close()
