"""
The newest Debian in a directory, for what this machine does not have: Python 3.14, and MySQL.

    debootstrap -> .cache/debian/ -> mounts of its own, chroot -> newest.py

Nothing of the machine is changed, and the mounts end with the command. Only as root, on Debian.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import servers
from environment import ROOT
from servers import NotThere

SUITE = "sid"
MIRROR = os.environ.get("DAYFLY_CI_DEBIAN_MIRROR", "http://deb.debian.org/debian")
PYTHON = "3.14"
PACKAGES = (
    f"python{PYTHON}",
    f"python{PYTHON}-venv",
    f"python{PYTHON}-dev",
    "gcc",
    "git",
    "pkgconf",
    "libmariadb-dev",
    "mysql-server-core",
    "ca-certificates",
    "procps",
)
#: What names the network, and whom to trust in it, is the machine's.
OF_MACHINE = ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt", "etc/pip.conf")


def make_ready() -> Path:
    """
    Return the directory, made first where it is not.

    Raises:
        NotThere: it cannot be made here, and why.
    """
    directory = ROOT / ".cache" / "debian"
    stamp = directory / "etc" / "dayfly-ci"
    wanted = f"{SUITE} {' '.join(PACKAGES)}\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return directory
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotThere("the newest Debian can be had as root on Debian alone.")
    if shutil.which("debootstrap") is None:
        variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        servers.run(["apt-get", "update", "-qq"], env=variables)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "debootstrap"]
        servers.run(install, env=variables)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    packages = f"--include={','.join(PACKAGES)}"
    servers.run(["debootstrap", "--variant=minbase", packages, SUITE, str(directory), MIRROR])
    stamp.write_text(wanted)
    return directory


def command(directory: Path, *arguments: str) -> list[str]:
    """Write the command that runs *arguments* in *directory*, where the checkout has its usual path."""
    inside = shlex.quote(str(directory))
    checkout = shlex.quote(str(ROOT))
    lines = [
        "set -e",
        f"for each in proc sys dev; do mount --rbind /$each {inside}/$each; done",
        f"mkdir -p {inside}{checkout}",
        f"mount --bind {checkout} {inside}{checkout}",
        *(f"cp -L /{name} {inside}/{name} 2>/dev/null || true" for name in OF_MACHINE),
        f"exec chroot {inside} {shlex.join(['env', '--chdir', str(ROOT), *arguments])}",
    ]
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines)]
