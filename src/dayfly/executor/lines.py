"""Parent side: open the lines to a child or a template: socket pairs, and a pipe for what a child prints."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator


def open_lines() -> tuple[socket.socket, socket.socket, int, int]:
    """
    Return our end and the child's end of the socket, then the reading and the writing end of the pipe.

    Raises:
        OSError: no descriptors are left; none is open then.
    """
    with _above_standard_streams():
        ours, theirs = socket.socketpair()
        try:
            output_read, output_write = os.pipe()
        except OSError:
            ours.close()
            theirs.close()
            raise
    return ours, theirs, output_read, output_write


def open_control() -> tuple[socket.socket, socket.socket]:
    """
    Return our end and the template's end of a socket that keeps messages apart.

    Raises:
        OSError: no descriptors are left.
    """
    with _above_standard_streams():
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@contextlib.contextmanager
def _above_standard_streams() -> Iterator[None]:
    """
    Let what is opened meanwhile get numbers above 2.

    In a host without standard streams it would get theirs, and be lost when the other side gives
    itself streams of its own.
    """
    with contextlib.ExitStack() as placeholders:
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            placeholders.callback(os.close, fd)
        os.close(fd)
        yield
