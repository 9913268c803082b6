"""Run background tasks in processes that die with the task. Imports nothing, so that the executor never meets Django."""

from __future__ import annotations

__version__ = "0.1.0"
