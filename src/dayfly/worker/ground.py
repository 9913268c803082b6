"""
Parent side: what must be in order before the first fork.

A parent forks well when it has one thread, no pool, no open transaction, a path for a
working directory that cannot vanish under it, and everything loaded that every child needs.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from django.core.cache import caches
from django.db import connections

from dayfly.exceptions import DayflyError
from dayfly.executor import workdir as workdirs
from dayfly.models import Job

logger = logging.getLogger("dayfly.worker")

_O_PATH = getattr(os, "O_PATH", os.O_RDONLY)

#: How long a locked SQLite file is waited for.
LOCK_SECONDS = 30


class CannotStart(DayflyError):
    """The worker cannot start; the message says why and what to do."""


def prepare(using: str, *, is_inline: bool) -> None:
    """
    Put this process in order, but for its working directory.

    Raises:
        CannotStart: what is wrong, and what to do.
    """
    refuse_open_transactions()
    drop_pools()
    drop_caches()
    prepare_sqlite(using, may_be_in_memory=is_inline)
    preload()


def refuse_open_transactions() -> None:
    """
    Refuse to fork inside a transaction: a child would see one that is not its own.

    Raises:
        CannotStart: a connection of this thread is inside atomic(), or the host has switched
            its autocommit off.
    """
    for wrapper in connections.all(initialized_only=True):
        is_manual = wrapper.connection is not None and not wrapper.autocommit
        if wrapper.in_atomic_block:
            message = (
                f"The worker cannot run inside transaction.atomic() (database {wrapper.alias!r}): its "
                "children would not see what is not committed. In tests, use TransactionTestCase."
            )
            raise CannotStart(message)
        if is_manual and wrapper.settings_dict["AUTOCOMMIT"]:
            message = (
                f"The worker cannot run while autocommit is off (database {wrapper.alias!r}): its "
                "children would not see what is not committed. Commit, and switch it on again with "
                "transaction.set_autocommit(True)."
            )
            raise CannotStart(message)


def refuse_missing_tables(using: str) -> None:
    """
    Look for the tables.

    Raises:
        CannotStart: they are not there.
    """
    if Job._meta.db_table not in connections[using].introspection.table_names():
        message = (
            f"The tables of dayfly are missing in database {using!r}. "
            f"Run: python manage.py migrate dayfly --database={using}"
        )
        raise CannotStart(message)


def drop_pools() -> None:
    """
    Work without psycopg's pools: they keep threads, and a process that forks must not.

    Parent and children have one connection each; nothing is lost.
    """
    for alias in connections:
        wrapper = connections[alias]
        if wrapper.vendor == "postgresql" and wrapper.settings_dict["OPTIONS"].get("pool"):
            wrapper.close()
            wrapper.close_pool()  # type: ignore[attr-defined]
            options = {**wrapper.settings_dict["OPTIONS"]}
            del options["pool"]
            wrapper.settings_dict["OPTIONS"] = options
            logger.debug("The worker does without the connection pool of database=%s", alias)


def drop_caches() -> None:
    """Close cache clients that were used while the project was loaded: the parent needs none, and children none of its."""
    for alias in caches:
        if hasattr(caches._connections, alias):  # type: ignore[attr-defined]
            caches[alias].close()
            del caches[alias]


def prepare_sqlite(using: str, *, may_be_in_memory: bool = False) -> None:
    """
    Make SQLite ready for several processes: absolute path, write-ahead log, patience.

    Readers and the one writer do not block each other in WAL mode; a lock is waited for.
    *may_be_in_memory*: there are no children, which could not see such a database.

    Raises:
        CannotStart: it is in memory.
    """
    for alias in connections:
        wrapper = connections[alias]
        name = wrapper.settings_dict["NAME"]
        if wrapper.vendor == "sqlite" and name and not _is_in_memory(name):
            # The worker leaves the working directory; a relative path would not mean the same.
            wrapper.settings_dict["NAME"] = _absolute(str(name))
    wrapper = connections[using]
    if wrapper.vendor != "sqlite":
        return
    if _is_in_memory(str(wrapper.settings_dict["NAME"])):
        if may_be_in_memory:
            return
        message = (
            f"Database {using!r} is SQLite in memory, which no child can see. "
            "Name a file in DATABASES, or use another database for the queue."
        )
        raise CannotStart(message)
    # Not by a PRAGMA: connections come and go, see Store.part_from_sqlite.
    options = wrapper.settings_dict["OPTIONS"]
    patience = max(options.get("timeout", 0), LOCK_SECONDS)
    wrapper.settings_dict["OPTIONS"] = {**options, "timeout": patience, "cached_statements": 16}
    wrapper.close()
    with wrapper.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode=WAL")


def warn_of_threads() -> None:
    """Name threads that run already: a fork copies one thread, and the locks of all."""
    tasks = Path("/proc/self/task")
    count = len(list(tasks.iterdir())) if tasks.exists() else 1
    if count > 1:
        threading = sys.modules["threading"]
        names = [thread.name for thread in threading.enumerate()[1:]]
        logger.warning(
            "%d threads run besides the worker (%s): a child forked while one holds a lock can hang."
            " Start them in tasks, or leave out of the worker's settings what starts them.",
            count - 1,
            ", ".join(names) or "not Python's",
        )


class WorkingDirectory:
    """Knows where children work, and keeps the parent where nothing can vanish."""

    def __init__(self, configured: str | None) -> None:
        self.path = workdirs.unresolved(configured)
        # Held open, as a directory then keeps its inode number: one that is removed and made
        # anew would mostly get the same, and look like the old one.
        try:
            self._fd = self._open()
        except OSError as error:
            what = (
                "does not exist"
                if isinstance(error, FileNotFoundError)
                else f"cannot be used ({error.strerror})"
            )
            message = f"The working directory {self.path} {what}. Name another with --workdir."
            raise CannotStart(message) from error
        self._before: str | None = None
        self._pwd_before = os.environ.get("PWD")

    def leave(self) -> None:
        """Go to the root directory."""
        self._go("/")

    def enter(self) -> None:
        """Go where tasks work, for a worker that runs them itself."""
        self._go(self.path)
        os.environ["PWD"] = self.path

    def visit(self, work: Callable[[], None]) -> None:
        """Call *work* where tasks work, if that is there: settings may have paths relative to it."""
        here = os.open(".", _O_PATH)
        try:
            with suppress(OSError):
                os.chdir(self.path)
            work()
        finally:
            os.fchdir(here)
            os.close(here)

    def was_replaced(self) -> bool:
        """Tell, once for each time, whether the path names another directory now."""
        held = os.fstat(self._fd)
        if workdirs.identity(self.path) in (None, (held.st_dev, held.st_ino)):
            return False
        try:
            fd = self._open()
        except OSError:
            return False  # gone again: a later look finds what came after
        os.close(self._fd)
        self._fd = fd
        return True

    def come_back(self) -> None:
        """Go back to where the worker was started, if that is still there."""
        os.close(self._fd)
        if self._before:
            try:
                os.chdir(self._before)
            except OSError:
                pass
        if self._pwd_before is not None:
            os.environ["PWD"] = self._pwd_before

    def _go(self, path: str) -> None:
        if self._before is None:
            try:
                self._before = os.getcwd()  # noqa: PTH109 - a string for os.chdir
            except OSError:
                self._before = ""
        os.chdir(path)

    def _open(self) -> int:
        return os.open(self.path, _O_PATH | os.O_DIRECTORY)


def preload() -> None:
    """Import what every child needs: once here is cheaper than once in each."""
    importlib.import_module("dayfly.worker.perform")


def _absolute(name: str) -> str:
    """Make the name of a file absolute. Django has SQLite take it for a URI if it looks like one."""
    if not name.startswith("file:"):
        return str(Path(name).absolute())
    path = name.removeprefix("file:")
    if path.startswith(("/", "?", "#")) or not path:
        return name
    return f"file:{quote(str(Path.cwd()))}/{path}"


def _is_in_memory(name: str) -> bool:
    return ":memory:" in str(name) or "mode=memory" in str(name)
