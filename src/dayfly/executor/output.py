"""Parent side: what children write to stdout and stderr, of which the tail is kept."""

from __future__ import annotations

import os

from dayfly.executor.children import Child

_READ_BYTES = 1 << 16


def drain(child: Child, *, at_most: int, keep_bytes: int) -> bool:
    """
    Read what was written so far: a pipe holds no more than *at_most* of our readings. False: it is closed.

    Never waits, and comes to an end, as a grandchild may hold the other end and go on writing.
    """
    for _ in range(at_most):
        try:
            data = os.read(child.output_fd, _READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        child.output_bytes += len(data)
        child.output += data
        excess = len(child.output) - keep_bytes
        if excess > 0:
            del child.output[:excess]
    return True
