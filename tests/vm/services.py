"""Services in cgroups of their own, as systemd makes them: for the tests in the virtual machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.helpers import ROOT, environment, eventually

CGROUPS = Path("/sys/fs/cgroup")
ENTER = Path(__file__).resolve().parent / "enter.py"
NOBODY = 65534


class Service:
    """A cgroup to start a host in, within another that may have a limit of its own."""

    def __init__(
        self,
        name: str = "dayfly",
        *,
        mark: str | None = "user.delegate",
        owner: int = 0,
        surrounding_bytes: int | None = None,
    ) -> None:
        self.surrounding = CGROUPS / f"{name}.slice"
        self.place = self.surrounding / f"{name}.service"
        self._owner = owner
        for above, below in ((CGROUPS, self.surrounding), (self.surrounding, self.place)):
            (above / "cgroup.subtree_control").write_text("+memory")
            below.mkdir()
        if surrounding_bytes is not None:
            (self.surrounding / "memory.max").write_text(str(surrounding_bytes))
        if mark is not None:
            os.setxattr(self.place, mark, b"1")
        if owner:
            # Source: systemd, cg_set_access: what a delegated cgroup's owner may write.
            for file in (".", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
                os.chown(self.place / file, owner, owner)

    @property
    def starts(self) -> list[str]:
        """What stands before a command that is to run in the service."""
        enter = [sys.executable, "-S", str(ENTER), str(self.place)]
        return [*enter, *as_user(self._owner)] if self._owner else enter

    def run(self, function: str, **arguments: Any) -> Any:
        """Run a function of hosts.py as the service; return what it returned."""
        command = [sys.executable, "-W", "error", "-m", "tests.vm.hosts"]
        done = subprocess.run(
            [*self.starts, *command, function, json.dumps(arguments)],
            cwd=ROOT,
            env=environment(DAYFLY_TEST_CGROUP=str(self.place)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def close(self) -> None:
        """Kill what is left, and remove the cgroups, as a service manager does."""
        (self.surrounding / "cgroup.kill").write_text("1")
        events = self.surrounding / "cgroup.events"
        eventually(lambda: "populated 0" in events.read_text(), what=f"the end of {self.place}")
        below = [path for path in self.surrounding.rglob("*") if path.is_dir()]
        for path in sorted(below, reverse=True):
            path.rmdir()
        self.surrounding.rmdir()


def as_user(user: int) -> list[str]:
    """
    Return what stands before a command that is to run as *user*.

    It may read everything, as Python may be in a directory that only root can open, and write
    no more than others.
    """
    command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return [*command, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
