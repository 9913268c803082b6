"""
Inside the newest Debian: start MySQL, run the tests on it, end it.

    python3.14 .ci/newest.py [what tests/run.py takes ...]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import servers
from environment import ROOT

PORT = 33306


def main(arguments: list[str]) -> int:
    print(subprocess.run(["mysqld", "--version"], capture_output=True, text=True).stdout, end="")
    with tempfile.TemporaryDirectory(prefix="dayfly-mysql-") as name:
        directory = Path(name)
        shutil.chown(directory, "nobody")
        server = start(directory)
        try:
            servers.wait_for(("127.0.0.1", PORT), "MySQL")
            command = [sys.executable, "tests/run.py", "--name", "newest", *arguments]
            url = f"mysql://root@127.0.0.1:{PORT}/dayfly"
            variables = {**os.environ, "DAYFLY_TEST_DATABASE_URLS": url}
            return subprocess.run(command, cwd=ROOT, env=variables).returncode
        finally:
            server.terminate()
            server.wait(60)


def start(directory: Path) -> subprocess.Popen[bytes]:
    """Start a server that has its data in *directory*, and root without a password."""
    data = directory / "data"
    common = [f"--datadir={data}", "--user=nobody", "--secure-file-priv=NULL"]
    log = directory / "log"
    prepared = subprocess.run(["mysqld", "--no-defaults", "--initialize-insecure", *common])
    if prepared.returncode != 0:
        raise servers.NotThere("MySQL could not make its data directory, see above.")
    return subprocess.Popen(
        [
            "mysqld", "--no-defaults", *common, "--bind-address=127.0.0.1", f"--port={PORT}",
            f"--socket={directory / 'socket'}", f"--pid-file={directory / 'pid'}",
            "--mysqlx=OFF", f"--log-error={log}",
        ],
    )  # fmt: skip


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except servers.NotThere as error:
        sys.exit(f"Error: {error}")
