"""
Child side: Django's hygiene after a fork.

An inherited connection must neither be used nor closed: closing it says goodbye on
the parent's socket and ends the parent's session (PostgreSQL Terminate, MySQL COM_QUIT,
TLS close_notify), and closing an SQLite handle drops the parent's locks. The executor
has pointed the descriptors at /dev/null already; here the objects are put where no
finaliser finds them, and Django is made to forget them.
"""

from __future__ import annotations

import _thread
import sys
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

#: Driver objects of the parent. Never emptied: the child leaves by os._exit.
_inherited: list[Any] = []


#: The state of a wrapper that never had a connection; what BaseDatabaseWrapper.__init__ sets.
_NEVER_CONNECTED = {
    "connection": None,
    "in_atomic_block": False,
    "needs_rollback": False,
    "rollback_exc": None,
    "closed_in_transaction": False,
    "commit_on_exit": True,
    "run_commit_hooks_on_set_autocommit_on": False,
    "close_at": None,
    "errors_occurred": False,
    "health_check_done": False,
}


def forget_inherited() -> None:
    """Make this child start without connections and pools of its parent."""
    for wrapper in connections.all(initialized_only=True):
        if wrapper.connection is not None:
            _forget_connection(wrapper)
    _forget_pools()


def _forget_connection(wrapper: BaseDatabaseWrapper) -> None:
    _inherited.append(wrapper.connection)
    wrapper.__dict__.update(_NEVER_CONNECTED)
    wrapper.atomic_blocks, wrapper.savepoint_ids, wrapper.run_on_commit = [], [], []
    # Held by nobody here, whatever it was at the fork.
    vars(wrapper)["_thread_sharing_lock"] = _thread.allocate_lock()


def _forget_pools() -> None:
    """Drop psycopg's pools: their threads were not forked (Django ticket 33497, OPTIONS["pool"])."""
    module = sys.modules.get("django.db.backends.postgresql.base")
    pools = getattr(getattr(module, "DatabaseWrapper", None), "_connection_pools", None)
    if pools:
        _inherited.append(dict(pools))
        pools.clear()


def close_connections() -> None:
    """Say goodbye on the connections that this child opened itself."""
    for wrapper in connections.all(initialized_only=True):
        if wrapper.connection is not None:
            wrapper.close()
