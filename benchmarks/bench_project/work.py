"""
What the jobs do, without Django, so that every contender runs the very same functions.

Each job leaves a stamp: its number and the moment its body ran, on the monotonic
clock, which all processes of a machine share. Appending 16 bytes is one write.
"""

from __future__ import annotations

import os
import struct
import time

#: The number of the job, nanoseconds of CLOCK_MONOTONIC.
STAMP = struct.Struct("<qq")

MEGABYTE = 1024 * 1024
#: What leak() never gives back.
HOARD: list[bytes] = []


def noop(number: int) -> None:
    """Do nothing but say when."""
    now = time.monotonic_ns()
    descriptor = os.open(os.environ["DAYFLY_BENCH_STAMPS"], os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, STAMP.pack(number, now))
    os.close(descriptor)


def leak(number: int) -> None:
    """Keep one megabyte for ever, as a task with a leak does."""
    HOARD.append(b"\1" * MEGABYTE)
    noop(number)
