"""
Parent side: a job is performed in the worker itself, by what performs it in a child.

The worker's own connections are put aside meanwhile. A task may break a transaction, close what
is open, or change settings of its session: it does so to connections of its own, which are closed
after it. Whatever else a task does to its process stays.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import Error

from dayfly.executor.child import take_callbacks, when_recorded
from dayfly.worker import perform as child_side

T = TypeVar("T")


def perform(payload: bytes) -> bytes:
    """
    Perform the job in *payload*; return its value as JSON.

    Raises:
        BaseException: as `dayfly.worker.perform.perform` does.
    """
    try:
        return _apart(partial(child_side.perform, payload))
    finally:
        for callback in take_callbacks():
            when_recorded(partial(_apart, callback))


def _apart(work: Callable[[], T]) -> T:
    """
    Call *work* with none of this thread's connections, and have the same as before after it.

    No context manager made of a generator: see Confinement.hold.
    """
    aside = {}
    for wrapper in connections.all(initialized_only=True):
        if not _is_in_memory(wrapper):
            aside[wrapper.alias] = wrapper
            del connections[wrapper.alias]
    try:
        return work()
    finally:
        for wrapper in connections.all(initialized_only=True):
            if not _is_in_memory(wrapper):
                with suppress(Error):  # it was broken already
                    wrapper.close()
                del connections[wrapper.alias]
        for alias, wrapper in aside.items():
            connections[alias] = wrapper


def _is_in_memory(wrapper: BaseDatabaseWrapper) -> bool:
    """Tell whether the data go with the connection: there is but one then, as in tests of a project."""
    return wrapper.vendor == "sqlite" and wrapper.is_in_memory_db()  # type: ignore[attr-defined]
