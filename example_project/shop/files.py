"""Files under var/: seen whole or not at all, also when a child is killed while it writes."""

from __future__ import annotations

import os
from pathlib import Path

from django.conf import settings


def write_whole(name: str, content: bytes) -> Path:
    """Write *content* to var/*name* and return the path."""
    path = settings.VAR_DIR / name
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two tasks may write the same invoice at the same time, each in its own child.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.replace(path)
    return path
