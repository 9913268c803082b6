"""The contenders, one module each: how to fill its queue, start it and stop it."""

from __future__ import annotations

from pathlib import Path

from harness.contenders.bare_fork import BareFork
from harness.contenders.base import Contender
from harness.contenders.dayfly import Dayfly
from harness.contenders.db_worker import DbWorker
from harness.contenders.plain import Plain
from harness.contenders.rq import Rq
from harness.servers import Servers

__all__ = ["Contender", "build"]


def build(name: str, place: str, servers: Servers, workspace: Path) -> Contender:
    """Return the contender of that name (options.CONTENDERS) at that place."""
    match name:
        case "dayfly-1":
            return Dayfly(place, servers, workspace, tasks_per_child=1)
        case "dayfly-1000":
            return Dayfly(place, servers, workspace, tasks_per_child=1000)
        case "dayfly-template-1":
            return Dayfly(place, servers, workspace, tasks_per_child=1, launcher="template")
        case "dayfly-template-1000":
            return Dayfly(place, servers, workspace, tasks_per_child=1000, launcher="template")
        case "bare-fork":
            return BareFork(place, servers, workspace)
        case "db-worker":
            return DbWorker(place, servers, workspace, conn_max_age="0")
        case "db-worker-persistent":
            return DbWorker(place, servers, workspace, conn_max_age="none")
        case "plain":
            return Plain(place, servers, workspace)
        case "rq":
            return Rq(place, servers, workspace)
    raise ValueError(name)
