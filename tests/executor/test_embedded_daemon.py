"""The example of a daemon with a loop of its own, started, talked to, and ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.helpers import ROOT, alive, children_of, environment, eventually

DAEMON = ROOT / "example_project" / "embedded_daemon.py"


class Running:
    """The daemon, and how to talk to it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(DAEMON), "--port=0", "--time-limit=0.5"],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.stdout = self.process.stdout
        self.port = int(self.stdout.readline().rpartition(":")[2])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, line: str) -> dict[str, object]:
        with self.connect() as client, client.makefile("r") as answers:
            client.sendall(f"{line}\n".encode())
            answer = json.loads(answers.readline())
        assert isinstance(answer, dict)
        return answer


@pytest.fixture
def daemon() -> Iterator[Running]:
    running = Running()
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        running.stdout.close()


def test_daemon_answers_with_the_value_and_prints_the_report(daemon: Running) -> None:
    answer = daemon.ask('{"work": "count_primes", "argument": 1000}')

    assert answer == {"outcome": "returned", "value": 168, "message": ""}
    line = daemon.stdout.readline()
    assert " returned: peak " in line
    assert float(line.split()[-2]) > 1


def test_daemon_survives_what_goes_wrong(daemon: Running) -> None:
    assert daemon.ask('{"work": "sleep", "argument": 60}')["outcome"] == "timed_out"
    failed = daemon.ask('{"work": "sleep", "argument": "long"}')
    assert failed["outcome"] == "raised"
    assert "TypeError" in str(failed["message"])
    for nonsense in ("nonsense", "[]", "{}", '{"work": "rm", "argument": 1}'):
        assert daemon.ask(nonsense)["outcome"] == "refused"

    assert daemon.ask('{"work": "sleep", "argument": 0}')["outcome"] == "returned"


def test_client_that_does_not_wait_harms_nobody(daemon: Running) -> None:
    with daemon.connect() as client:
        client.sendall(b'{"work": "sleep", "argument": 0.1}\n')

    assert daemon.ask('{"work": "sleep", "argument": 0.2}')["outcome"] == "returned"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_the_daemon_and_its_children(daemon: Running, number: int) -> None:
    with daemon.connect() as client:
        client.sendall(b'{"work": "sleep", "argument": 60}\n')
        eventually(lambda: len(children_of(daemon.process.pid)) == 3, what="running and standby")
        pids = children_of(daemon.process.pid)

        os.kill(daemon.process.pid, number)
        assert daemon.process.wait(20) == 0

    assert daemon.stdout.read() == "stopped\n"
    assert not any(map(alive, pids))


def test_killed_daemon_leaves_no_children(daemon: Running) -> None:
    eventually(lambda: len(children_of(daemon.process.pid)) == 2)
    pids = children_of(daemon.process.pid)

    daemon.process.kill()

    eventually(lambda: not any(map(alive, pids)))


def test_daemon_has_help() -> None:
    done = subprocess.run(
        [sys.executable, str(DAEMON), "--help"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert "--port" in done.stdout
    assert "--time-limit" in done.stdout


def test_example_is_short() -> None:
    assert len(DAEMON.read_text().splitlines()) < 100
