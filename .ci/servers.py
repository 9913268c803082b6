"""
The database servers of this machine: used when they run, started when they are only installed.

Nothing is installed but the headers that mysqlclient is built with, and that only as root.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

STARTS_WITHIN_SECONDS = 60
URLS = {
    "postgresql": os.environ.get("DAYFLY_CI_POSTGRESQL_URL", "postgresql://root@127.0.0.1/dayfly"),
    "mysql": os.environ.get("DAYFLY_CI_MYSQL_URL", "mysql://root@127.0.0.1/dayfly"),
}
PORTS = {"postgresql": 5432, "mysql": 3306}
NAMES = {"postgresql": "PostgreSQL", "mysql": "MariaDB"}


class NotThere(Exception):
    """A server or a library is missing. The message is one sentence for a person."""


def make_ready(scheme: str) -> str:
    """
    Return the URL of a server that accepts connections, after starting it if need be.

    Raises:
        NotThere: it is not installed, may not be started, or did not come up.
    """
    parts = urlsplit(URLS[scheme])
    address = (parts.hostname or "127.0.0.1", parts.port or PORTS[scheme])
    if not accepts(address):
        if address[0] not in ("127.0.0.1", "localhost"):
            raise NotThere(f"{NAMES[scheme]} does not answer at {address[0]}:{address[1]}.")
        START[scheme]()
        wait_for(address, NAMES[scheme])
    return URLS[scheme]


def accepts(address: tuple[str, int]) -> bool:
    """Tell whether someone listens at *address*."""
    try:
        socket.create_connection(address, timeout=5).close()
    except OSError:
        return False
    return True


def wait_for(address: tuple[str, int], name: str) -> None:
    """Return once *address* accepts connections."""
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while not accepts(address):
        if time.monotonic() > deadline:
            raise NotThere(
                f"{name} was started, and does not answer at port {address[1]} "
                f"after {STARTS_WITHIN_SECONDS} s: look into its log."
            )
        time.sleep(0.2)


def start_postgresql() -> None:
    """Start Debian's main cluster, the newest version that there is."""
    clusters = sorted(
        Path("/etc/postgresql").glob("*/main"), key=lambda path: float(path.parent.name)
    )
    if shutil.which("pg_ctlcluster") is None or not clusters:
        raise NotThere("PostgreSQL is not installed here (on Debian: apt install postgresql).")
    version = clusters[-1].parent.name
    run(["pg_ctlcluster", "--skip-systemctl-redirect", version, "main", "start"])


def start_mariadb() -> None:
    """Start the server as Debian installs it, with its default data directory."""
    server = shutil.which("mariadbd", path="/usr/sbin:" + os.environ.get("PATH", ""))
    if server is None:
        raise NotThere("MariaDB is not installed here (on Debian: apt install mariadb-server).")
    # What a service manager would do before: the directory of socket and pid file.
    run(["install", "-d", "-o", "mysql", "-g", "mysql", "/run/mysqld"])
    start = ["start-stop-daemon", "--start", "--oknodo", "--background", "--exec", server]
    run([*start, "--", "--user=mysql"])


START: dict[str, Callable[[], None]] = {"postgresql": start_postgresql, "mysql": start_mariadb}


def make_client_library_ready(pythons_without_headers: list[str]) -> None:
    """
    See to it that mysqlclient can be built.

    Raises:
        NotThere: something is missing, and may not or could not be installed.
    """
    missing = []
    if not knows_client_library():
        missing += ["libmariadb-dev", "pkg-config"]
    if shutil.which("gcc") is None and shutil.which("cc") is None:
        missing.append("gcc")
    missing += [f"python{short}-dev" for short in pythons_without_headers]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotThere(f"mysqlclient cannot be built: install {' '.join(missing)}.")
    variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], env=variables)
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], env=variables)


def knows_client_library() -> bool:
    """Tell whether pkg-config finds a client library, as mysqlclient's build asks it."""
    if shutil.which("pkg-config") is None:
        return False
    return any(
        subprocess.run(["pkg-config", "--exists", name], check=False).returncode == 0
        for name in ("mysqlclient", "mariadb", "libmariadb")
    )


def run(command: list[str], **options: dict[str, str]) -> None:
    """Run *command*, or say what it said."""
    print("$", " ".join(command), flush=True)
    # Not a pipe: a server that stays behind would hold its other end open.
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, check=False, **options)
    if ended.returncode != 0:
        raise NotThere(f"{' '.join(command)} failed with exit code {ended.returncode}, see above.")
