"""Parent side: open the two lines to a child, a socket pair for frames and a pipe for its output."""

from __future__ import annotations

import contextlib
import os
import socket


def open_lines() -> tuple[socket.socket, socket.socket, int, int]:
    """
    Return our end and the child's end of the socket, then the reading and the writing end of the pipe.

    All above 2: in a host without standard streams they would get those numbers, and
    be lost when the child gives itself streams of its own.

    Raises:
        OSError: no descriptors are left; none is open then.
    """
    with contextlib.ExitStack() as placeholders:
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            placeholders.callback(os.close, fd)
        os.close(fd)
        ours, theirs = socket.socketpair()
        try:
            output_read, output_write = os.pipe()
        except OSError:
            ours.close()
            theirs.close()
            raise
    return ours, theirs, output_read, output_write
