"""Both sides: plain data. What the parent tells a child about the job that it is to perform."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

_SEPARATOR = b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One job, as the child needs it. Moments are ISO 8601 text."""

    job_id: str
    task_path: str
    backend_name: str
    queue_name: str
    priority: int
    run_after: str | None
    attempt: int
    enqueued_at: str
    started_at: str
    last_attempted_at: str
    worker_name: str

    def encode(self, arguments: str) -> bytes:
        """Write the order, and behind it the arguments, which the parent does not read."""
        said = {name: getattr(self, name) for name in _NAMES}
        return json.dumps(said).encode() + _SEPARATOR + arguments.encode()

    @classmethod
    def decode(cls, payload: bytes) -> tuple[Order, dict[str, Any]]:
        """Read an order and its arguments {"args": [...], "kwargs": {...}}."""
        head, _, arguments = payload.partition(_SEPARATOR)
        return cls(**json.loads(head)), json.loads(arguments)


_NAMES = tuple(field.name for field in fields(Order))


def moment(text: str | None) -> datetime | None:
    """Read a moment of an order."""
    return None if text is None else datetime.fromisoformat(text)
