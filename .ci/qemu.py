"""What the virtual machine of the tests takes: qemu, and a kernel in Debian's packages."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

import servers
from environment import ROOT, last_line
from servers import NotThere

PROGRAM = "qemu-system-x86_64"
PACKAGE = "qemu-system-x86"


def make_ready() -> None:
    """
    See to it that the virtual machine can run; qemu is installed where that is allowed.

    Raises:
        NotThere: it cannot, and why.
    """
    if platform.machine() != "x86_64":
        raise NotThere(f"the virtual machine is for x86_64, and this is {platform.machine()}.")
    if shutil.which(PROGRAM) is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise NotThere(f"there is no {PROGRAM} here (on Debian: apt install {PACKAGE}).")
        variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        servers.run(["apt-get", "update", "-qq"], env=variables)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", PACKAGE]
        servers.run(install, env=variables)
    command = [sys.executable, str(ROOT / "tests" / "vm" / "run.py"), "--prepare"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode != 0:
        raise NotThere(last_line(ended.stdout).removeprefix("Error: "))
