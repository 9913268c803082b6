"""
The verbs of the queue. Every statement that locks is in this package, nowhere else.

    add -> (promote) -> claim -> finish -> note_exits ... prune
                          |
                        rescue, when the worker went silent

Each verb takes `using`, a database alias, and is one statement or one short
transaction. The hot ones are raw SQL: the worker's parent runs them for each job,
and compiling a queryset costs more than the statement. Apart from `add`, which
belongs to the caller's transaction, they are meant to be called outside of one.
Those of pruning are in prunings.py alone: no worker needs them.
"""

from __future__ import annotations

from dayfly.queue.claims import claim, held
from dayfly.queue.entries import add, count_ready, next_due_seconds, notify, promote
from dayfly.queue.outcomes import finish, note_exits
from dayfly.queue.rescues import has_stranded, rescue
from dayfly.queue.rows import (
    Claim,
    NewJob,
    NewRun,
    Pruning,
    Rescued,
    RunExit,
    Selection,
    Settlement,
)
from dayfly.queue.workers import heartbeat, register, retire

__all__ = [
    "NOTIFY_CHANNEL",
    "Claim",
    "NewJob",
    "NewRun",
    "Pruning",
    "Rescued",
    "RunExit",
    "Selection",
    "Settlement",
    "add",
    "claim",
    "count_ready",
    "finish",
    "has_stranded",
    "heartbeat",
    "held",
    "next_due_seconds",
    "note_exits",
    "notify",
    "promote",
    "register",
    "rescue",
    "retire",
]

#: What workers on PostgreSQL LISTEN to; the payload is the name of the queue.
NOTIFY_CHANNEL = "dayfly"
