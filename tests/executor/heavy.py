"""What a template loads that holds as much as a large application."""

from __future__ import annotations

hoard = [bytes(1_000) for _ in range(24_000)]
