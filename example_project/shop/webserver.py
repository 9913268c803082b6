"""The shop's own web server, for as long as the demo needs one."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from django.conf import settings
from django.core.management.base import CommandError

STARTS_WITHIN_SECONDS = 30


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Serve this project on a free port of the loopback. Gives the URL of the exchange rates."""
    port = free_port()
    command = [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    log_path = settings.VAR_DIR / "webserver.log"
    with log_path.open("w") as log:
        server = subprocess.Popen(
            command, cwd=settings.BASE_DIR, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            wait_until_it_answers(server, port)
            yield f"http://127.0.0.1:{port}/exchange-rates/"
        finally:
            server.terminate()
            server.wait()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_it_answers(server: subprocess.Popen[bytes], port: int) -> None:
    """
    Return once the server accepts connections.

    Raises:
        CommandError: it ended, or took too long.
    """
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/exchange-rates/")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    log = settings.VAR_DIR / "webserver.log"
    raise CommandError(f"The example's web server did not start: its messages are in {log}.")
