"""
What differs between databases: the clock, values in and out, transactions, patience.

The database's clock judges everything, in UTC (see dayfly.fields). SQLite keeps moments
as text, always written here with six digits after the second: comparing texts is then
comparing moments.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from django.db import OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field

from dayfly.fields import from_stored, to_stored
from dayfly.queue.faults import is_locked, is_transient

P = ParamSpec("P")
T = TypeVar("T")

#: How often a verb tries again after losing a race for locks.
TRIES = 6
#: How long a locked SQLite database is waited for, beyond the connection's own timeout.
LOCKED_SECONDS = 30.0


def now(connection: BaseDatabaseWrapper, plus_seconds: float = 0.0) -> str:
    """
    Write the SQL of the database's clock, in the form in which moments are stored.

    A percent sign in it is doubled: execute it with parameters.
    """
    if connection.vendor == "postgresql":
        # Not now(): that one stands still within a transaction.
        plus = f" + interval '{plus_seconds:.6f} seconds'" if plus_seconds else ""
        return f"(statement_timestamp(){plus})"
    if connection.vendor == "mysql":
        microseconds = round(plus_seconds * 1_000_000)
        plus = f" + INTERVAL {microseconds} MICROSECOND" if plus_seconds else ""
        return f"(UTC_TIMESTAMP(6){plus})"
    plus = f", '{plus_seconds:+.3f} seconds'" if plus_seconds else ""
    return f"(strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now'{plus}) || '000')"


def moment_parameter(connection: BaseDatabaseWrapper) -> str:
    """Write a placeholder that the database compares as a moment."""
    casts = {"postgresql": "%s::timestamptz", "mysql": "CAST(%s AS DATETIME(6))"}
    return casts.get(connection.vendor, "%s")


def from_moment(connection: BaseDatabaseWrapper, value: datetime | None) -> Any:
    """Turn a moment into a parameter."""
    return None if value is None else to_stored(connection, value)


def to_moment(connection: BaseDatabaseWrapper, value: Any) -> Any:
    """Turn what a raw cursor gave for a moment into what Django would give."""
    if value is None:
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return from_stored(connection, value)


def from_uuid(connection: BaseDatabaseWrapper, value: UUID) -> Any:
    """Turn an id into a parameter."""
    return value if connection.features.has_native_uuid_field else value.hex


def to_uuid(value: Any) -> UUID:
    """Turn what a raw cursor gave for an id into an id."""
    return value if isinstance(value, UUID) else UUID(str(value))


def clean(field: Field[Any, Any], value: Any) -> Any:
    """
    Make a text fit its column.

    What a task prints may hold NUL bytes or halves of surrogate pairs, which
    databases refuse; an outcome must never be lost over that.
    """
    if not isinstance(value, str):
        return value
    text = str(value)
    if "\x00" in text:
        text = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    return text[: field.max_length] if field.max_length else text


def placeholders(count: int) -> str:
    """Write *count* placeholders, as for IN (...)."""
    return ", ".join(["%s"] * count)


def fetch(connection: BaseDatabaseWrapper, sql: str, params: Sequence[Any]) -> list[Any]:
    """Run one statement and give its rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())


def change(connection: BaseDatabaseWrapper, sql: str, params: Sequence[Any]) -> int:
    """Run one statement and give how many rows it matched."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return int(cursor.rowcount)


def clock(connection: BaseDatabaseWrapper) -> datetime:
    """Ask the database what time it is."""
    moment: datetime = to_moment(
        connection, fetch(connection, f"SELECT {now(connection)}", [])[0][0]
    )
    return moment


def in_callers_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether somebody else is going to commit: in atomic(), or with autocommit switched off."""
    # The attribute, not get_autocommit(): that one connects. Without a connection it means nothing.
    is_manual = connection.connection is not None and not connection.autocommit
    return connection.in_atomic_block or is_manual


@contextmanager
def writing(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """
    Open one transaction that is going to write.

    On SQLite it begins IMMEDIATE whatever the project's transaction_mode: a
    transaction that reads first and writes then fails at once, without waiting,
    when somebody else wrote in between. Within an atomic block it is a savepoint.
    """
    with ExitStack() as stack:
        atomic = transaction.atomic(using=connection.alias)
        if connection.vendor == "sqlite" and not connection.in_atomic_block:
            connection.ensure_connection()  # sets transaction_mode from the project's OPTIONS
            wrapper: Any = connection
            usual = wrapper.transaction_mode
            wrapper.transaction_mode = "IMMEDIATE"
            try:
                stack.enter_context(atomic)
            finally:
                wrapper.transaction_mode = usual
        else:
            stack.enter_context(atomic)
        yield


def patient(verb: Callable[P, T]) -> Callable[P, T]:
    """
    Repeat a verb that lost a race for locks, or found SQLite locked.

    Not within the caller's transaction: a deadlock has rolled back all of it, and only
    the caller can repeat that.
    """

    @functools.wraps(verb)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        connection = connections[str(kwargs["using"])]
        end = time.monotonic() + LOCKED_SECONDS
        tries = 0
        while True:
            try:
                return verb(*args, **kwargs)
            except OperationalError as error:
                tries += 1
                locked = is_locked(error) and time.monotonic() < end
                if in_callers_transaction(connection) or not (
                    locked or (is_transient(error) and tries < TRIES)
                ):
                    raise
            # Apart, so that those who met do not meet again.
            time.sleep(random.uniform(0.001, 0.005) * min(tries, 10))

    return wrapper
