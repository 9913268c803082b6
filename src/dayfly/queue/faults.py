"""
What an error of the database is about: what the statement holds, the connection, or neither.

Django's classes do not say it. To mysqlclient an emoji that no column takes is an
OperationalError like a server that is away; to psycopg a server that became a standby is
an InternalError. So the drivers' own codes decide, here and nowhere else.
"""

from __future__ import annotations

from enum import Enum

from django.db.utils import DataError, Error, IntegrityError, InterfaceError, OperationalError


class Fault(Enum):
    """What to do after an error."""

    #: A value in it is refused, and would be again: write it without.
    VALUE = "value"
    #: The connection is gone, and nobody said why: connect, and try again. If that happens again
    #: and again, the statement may be the reason.
    BROKEN = "broken"
    #: Somebody else held locks on the same rows or tables for longer than may be waited.
    LOCKED = "locked"
    #: None of these: a server that is away, a standby, or full; a table or a right that is
    #: missing. What failed may succeed later, as it is.
    NOT_NOW = "not now"


#: SQLITE_BUSY and SQLITE_LOCKED. Source: sqlite.org/rescode.html.
SQLITE_LOCKED = frozenset({5, 6})
#: Classes of SQLSTATE: a program limit is exceeded (a text that is too large, for one). Data
#: exceptions (22) and broken constraints (23) have classes of Django's own.
POSTGRESQL_VALUE = ("54",)
#: Connection exceptions.
POSTGRESQL_BROKEN = ("08",)
#: Deadlock and serialization failure of PostgreSQL; both ask to try again.
POSTGRESQL_TRANSIENT = frozenset({"40001", "40P01"})

#: What MySQL and MariaDB say of values and have no class of their own for. Row and packet too
#: large (1118, 1153, 1301), collations that do not mix (1267, 1300, 3988), and values that are no
#: text of the column's character set, no number, no moment (1292, 1366, 1411).
MYSQL_VALUE = frozenset({1118, 1153, 1267, 1292, 1300, 1301, 1366, 1411, 3988})
#: Gone away, lost during a query, lost at some system call. Source: errmsg.h.
MYSQL_BROKEN = frozenset({2006, 2013, 2055})
#: Deadlock of MySQL and MariaDB.
MYSQL_TRANSIENT = frozenset({1213})

#: lock_not_available, and the lock wait timeout of MySQL and MariaDB.
POSTGRESQL_LOCKED = "55P03"
MYSQL_LOCKED = 1205


def fault_of(error: Error) -> Fault:
    """Tell what *error* is about."""
    if isinstance(error, (DataError, IntegrityError)):
        return Fault.VALUE
    if isinstance(error, InterfaceError):
        return Fault.BROKEN
    state, number = _state(error), _number(error)
    if (state is not None and state.startswith(POSTGRESQL_VALUE)) or number in MYSQL_VALUE:
        return Fault.VALUE
    if state == POSTGRESQL_LOCKED or number == MYSQL_LOCKED:
        return Fault.LOCKED
    if _is_broken(error, state, number):
        return Fault.BROKEN
    return Fault.NOT_NOW


def is_locked(error: OperationalError) -> bool:
    """Tell whether SQLite was busy for longer than the connection's timeout."""
    code = getattr(error.__cause__, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in SQLITE_LOCKED


def is_transient(error: OperationalError) -> bool:
    """Tell whether the server rolled back because of others, so that a repeat may succeed."""
    return _state(error) in POSTGRESQL_TRANSIENT or _number(error) in MYSQL_TRANSIENT


def _is_broken(error: Error, state: str | None, number: int | None) -> bool:
    if state is not None:
        return state.startswith(POSTGRESQL_BROKEN)
    if number is not None:
        return number in MYSQL_BROKEN
    # libpq has no code for a connection that broke under it; one to SQLite does not break.
    is_of_sqlite = hasattr(error.__cause__, "sqlite_errorcode")
    return isinstance(error, OperationalError) and not is_of_sqlite


def _state(error: Error) -> str | None:
    """Read the SQLSTATE; psycopg 3 says sqlstate, psycopg2 says pgcode."""
    cause = error.__cause__
    state: str | None = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return state


def _number(error: Error) -> int | None:
    """Read the number of an error of MySQL or MariaDB, which is the first that its driver says."""
    number = error.args[0] if error.args else None
    return number if isinstance(number, int) else None
