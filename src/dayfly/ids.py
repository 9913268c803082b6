"""Both sides: plain data. UUIDv7 keys: unique everywhere, and in the order of time within an index."""

from __future__ import annotations

import os
import time
import uuid

_last_ms = 0
_sequence = 0


def uuid7() -> uuid.UUID:
    """
    Make an id whose order is the order of time.

    Within one process ids rise strictly, also within one millisecond: the 12 bits
    after the timestamp count. Source: RFC 9562, sections 5.7 and 6.2 (method 1).
    """
    global _last_ms, _sequence
    now_ms = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    if now_ms > _last_ms:
        _last_ms = now_ms
        _sequence = (random >> 64) & 0x7FF  # leaves half of the range to count in
    else:
        _sequence += 1
        if _sequence > 0xFFF:
            _last_ms += 1
            _sequence = 0
    value = _last_ms << 80 | 0x7 << 76 | _sequence << 64 | 0b10 << 62 | random & ((1 << 62) - 1)
    return uuid.UUID(int=value)
