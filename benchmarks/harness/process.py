"""Processes of a contender: start, wait, stop, look at their memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
#: How long a worker may take to leave after SIGTERM.
STOP_SECONDS = 15


class BenchError(Exception):
    """A measurement that did not come about; the message says why, in one sentence."""


def status_bytes(pid: int, field: str) -> int | None:
    """Return a field of /proc/pid/status in bytes (proc(5)); None when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


class Process:
    """One process in a group of its own, its output in a file."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, name: str
    ) -> None:
        self.name = name
        self.log = log
        # Its output goes to a file: a pipe that nobody reads would stop it.
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                command,
                cwd=HERE,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process that was started: the parent of its children."""
        return self.popen.pid

    def tail(self) -> str:
        """Return the last line it wrote, to say why it failed."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "no output"

    def check_alive(self) -> None:
        """Raise if it is gone although it was not asked to go."""
        code = self.popen.poll()
        if code is not None:
            raise BenchError(f"{self.name} ended with code {code}: {self.tail()}")

    def stop(self) -> None:
        """Ask it to go, then make it and what it left behind go."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # nothing is left of its group
        self.popen.wait()


def wait_for_all(processes: Sequence[Process], limit_seconds: float) -> int:
    """
    Wait until all have ended well; return the largest RSS in bytes seen of one of them.

    One look at /proc each half second is all that the harness does meanwhile.
    """
    deadline = time.monotonic() + limit_seconds
    largest = 0
    running = list(processes)
    while running:
        process = running[0]
        try:
            code = process.popen.wait(0.5)
        except subprocess.TimeoutExpired:
            largest = max(largest, status_bytes(process.pid, "VmRSS") or 0)
            if time.monotonic() > deadline:
                raise BenchError(
                    f"{process.name} was not done after {limit_seconds:.0f} s: {process.tail()}"
                ) from None
            continue
        if code != 0:
            raise BenchError(f"{process.name} ended with code {code}: {process.tail()}")
        running.pop(0)
    return largest


def output_of(command: Sequence[str], environment: Mapping[str, str], name: str) -> str:
    """Run a short command to its end and return what it printed."""
    done = subprocess.run(
        command,
        cwd=HERE,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no output"]
        raise BenchError(f"{name} ended with code {done.returncode}: {lines[-1][:300]}")
    return done.stdout


def manage(*arguments: str) -> list[str]:
    """Return the command line of a management command."""
    return [sys.executable, str(HERE / "manage.py"), *arguments]
