"""
Child side: go through a call some times in the template, before children are forked from it.

CPython makes code faster that has run a few times, and notes in the code how: a child that
serves one call runs everything for the first time, and copies each page that it notes
something in. What the template has run, its children inherit ready. Figures: docs/design.md.
"""

from __future__ import annotations

import gc
import socket
from dataclasses import replace

from dayfly.executor import child, wire
from dayfly.executor.call import Call
from dayfly.executor.terms import Terms

#: More bring nothing: measured on 3.11 and 3.13 with 3, 12 and 40.
TIMES = 4


def rehearse(terms: Terms) -> None:
    """
    Live a child's life, with calls that do nothing but what `Terms.rehearsal` does.

    One that fails does no harm: children are then as fast as they are without.
    """
    call = terms.rehearsal or Call(target=f"{__name__}.nothing")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        life = child.Life(theirs, replace(terms, workdir=None), None)
        for _ in range(TIMES):
            _go_through(call, ours, life)
    gc.collect()  # of what this left: the rest is frozen, and not looked at
    gc.freeze()


def nothing(payload: bytes) -> bytes:
    """Do what a call does that does nothing."""
    return payload


def _go_through(call: Call, ours: socket.socket, life: child.Life) -> wire.Frame | None:
    """Play the parent for one call; return what the child says."""
    ours.sendall(wire.encode(wire.CALL, call.order(), call.payload))
    ours.sendall(wire.encode(wire.RECORDED, {"ids": [call.call_id]}))
    life.take_frame()
    life.take_frame()
    reader = wire.Reader(life.terms.max_value_bytes)
    reader.feed(ours.recv(wire.MAX_HEAD_BYTES))
    return reader.next()
