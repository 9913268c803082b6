"""
Both sides: plain data. Frames on the socket between a parent and one child.

    parent                                child
                                        <- READY    (only from an interpreter of its own, once it has loaded)
      CALL  {id, target, ...} + payload ->
                                        <- REPORT {id, outcome, ...} + value
      RECORDED {ids}                    ->   (only when something in the child waits for it)
      REFUSED {ids}                     ->   (the report does not stand: what waits is forgotten)

A frame is a kind, the length of a JSON head, the length of a body, then both.
The parent reads heads with `json` and checks every field: what a child sends is
whatever the code in it wanted to send.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

CALL = 1
RECORDED = 2
REPORT = 3
READY = 4
REFUSED = 5

_PREFIX = struct.Struct("!4sBII")
_MAGIC = b"dfly"
PREFIX_BYTES = _PREFIX.size
#: A head holds a traceback at most; the child cuts it below this.
MAX_HEAD_BYTES = 1 << 20
#: What the length of a body can say.
MAX_BODY_BYTES = (1 << 32) - 1


class Garbage(ValueError):
    """What came over the pipe is no frame, or too large a one."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message, whole."""

    kind: int
    head: dict[str, Any]
    body: bytes


def encode(kind: int, head: dict[str, Any] | None = None, body: bytes = b"") -> bytes:
    """Write a frame."""
    # As UTF-8, at most 4 bytes a character: escaped, a long traceback could outgrow MAX_HEAD_BYTES.
    text = json.dumps(head, ensure_ascii=False).encode("utf-8", "surrogatepass") if head else b""
    return _PREFIX.pack(_MAGIC, kind, len(text), len(body)) + text + body


class Reader:
    """Puts frames together from the pieces in which they arrive."""

    __slots__ = ("_buffer", "_max_body_bytes")

    def __init__(self, max_body_bytes: int) -> None:
        self._buffer = bytearray()
        self._max_body_bytes = max_body_bytes

    def feed(self, data: bytes) -> None:
        """Add what was read."""
        self._buffer += data

    def next(self) -> Frame | None:
        """
        Take the next whole frame, or None.

        Raises:
            Garbage: the bytes are no frame, or announce more than is allowed.
        """
        if len(self._buffer) < PREFIX_BYTES:
            if self._buffer and not _MAGIC.startswith(bytes(self._buffer[:4])):
                raise Garbage("it is not a frame")
            return None
        magic, kind, head_bytes, body_bytes = _PREFIX.unpack_from(self._buffer)
        if magic != _MAGIC:
            raise Garbage("it is not a frame")
        if head_bytes > MAX_HEAD_BYTES or body_bytes > self._max_body_bytes:
            message = f"it announces {head_bytes + body_bytes} bytes, more than is allowed"
            raise Garbage(message)
        end = PREFIX_BYTES + head_bytes + body_bytes
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            text = bytes(view[PREFIX_BYTES : PREFIX_BYTES + head_bytes])
            body = bytes(view[PREFIX_BYTES + head_bytes : end])
        del self._buffer[:end]
        return Frame(kind, _head(text), body)

    @property
    def is_empty(self) -> bool:
        """Whether no half frame is left over."""
        return not self._buffer


def _head(text: bytes) -> dict[str, Any]:
    if not text:
        return {}
    try:
        head = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Garbage("its head is not JSON") from error
    if not isinstance(head, dict):
        raise Garbage("its head is not an object")
    return head
