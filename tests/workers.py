"""Real workers for tests: processes of `manage.py runworker` on the test database."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import OperationalError, connection, connections, transaction

from dayfly.models import FINISHED, Job, JobStatus, Run, Worker
from tests.helpers import ROOT, alive, environment, eventually, state_of

SETTINGS = "tests.lifecycle.settings"
#: The shortest lease that there is, for tests in which a worker goes silent.
SHORT_LEASE = {"LEASE_SECONDS": 5}


class WorkerProcess:
    """A worker that runs now, and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log_path: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._log_path = log_path
        self._last_log = ""

    def log(self) -> str:
        """Return what it wrote so far, on stdout and stderr; also after its end."""
        with suppress(FileNotFoundError):
            self._last_log = self._log_path.read_text(errors="backslashreplace")
        return self._last_log

    def says(self, text: str, *, times: int = 1, within: float = 20.0) -> None:
        """Wait until it wrote *text*, or fail when it ended without."""

        def said() -> bool:
            has_ended = self.process.poll() is not None
            if self.log().count(text) >= times:
                return True
            assert not has_ended, f"it ended without a word of {text!r}:\n{self.log()}"
            return False

        eventually(said, within=within, what=text)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def suspend(self) -> None:
        """
        Suspend it between two transactions.

        In the middle of one it would keep its locks, on SQLite the one of the whole file, and
        whoever waits for them waits for a process that does not move.
        """

        def holds_no_lock() -> bool:
            self.signal(signal.SIGSTOP)
            eventually(lambda: state_of(self.pid) == "T", what="its suspension")
            if nobody_writes():
                return True
            self.signal(signal.SIGCONT)
            return False

        eventually(holds_no_lock, what="a moment without a lock")

    def ends(self, within: float = 20.0) -> int:
        """Wait for its end; return the exit code, negative for a signal."""
        eventually(lambda: self.process.poll() is not None, within=within, what="its end")
        return int(self.process.returncode)

    def stops(self, within: float = 20.0) -> int:
        """Ask it to stop, and wait for its end."""
        self.signal(signal.SIGTERM)
        return self.ends(within)


@contextmanager
def running_worker(
    *flags: str,
    options: Mapping[str, Any] | None = None,
    settings: str = SETTINGS,
    command: Iterable[str] = ("-m", "django", "runworker"),
    cwd: Path | None = None,
    is_ready: bool = True,
    complains: bool = False,
    **variables: str,
) -> Iterator[WorkerProcess]:
    """
    Run a worker with *flags* for as long as the block lasts; it never outlives it.

    *options* are its OPTIONS of TASKS. Unless it *complains*, a traceback in its log is a failure.
    """
    with tempfile.TemporaryDirectory(prefix="dayfly-worker-") as directory:
        log_path = Path(directory) / "log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-W", "error", *command, *flags],
                cwd=cwd or ROOT,
                env=worker_environment(options, DJANGO_SETTINGS_MODULE=settings, **variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        worker = WorkerProcess(process, log_path)
        try:
            if is_ready:
                worker.says("The parent costs RSS=")
            yield worker
            assert complains or "Traceback" not in worker.log()
        except BaseException as error:
            error.add_note(f"The worker's log:\n{_last_words(worker)}")
            raise
        finally:
            _end(process)
            worker.log()


def run_worker(*flags: str, within: float = 60.0, **how: Any) -> str:
    """Let a worker run until it leaves by itself, in good order; return its log."""
    with running_worker(*flags, is_ready=False, **how) as worker:
        code = worker.ends(within)
        assert code == 0, f"exit code {code}"
        return worker.log()


def worker_environment(
    options: Mapping[str, Any] | None = None, **variables: str
) -> dict[str, str]:
    """Return an environment in which a process works on the test database."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return environment(
        **{
            "DAYFLY_TEST_DATABASE_NAME": str(connection.settings_dict["NAME"]),
            "DAYFLY_TEST_OPTIONS": json.dumps(dict(options or {})),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": path,
            "PWD": str(ROOT),
            **variables,
        }
    )


def _last_words(worker: WorkerProcess) -> str:
    """Return its log, with a stack at the end when it still runs."""
    if worker.process.poll() is None:
        worker.signal(signal.SIGCONT)
        worker.signal(signal.SIGUSR2)
        with suppress(AssertionError):
            eventually(lambda: "most recent call first" in worker.log(), within=2)
    lines = [line for line in worker.log().splitlines() if "Heartbeat" not in line]
    return "\n".join(lines[-60:])


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.kill()
    process.wait()


# Rows


def job_of(result: Any) -> Job:
    """Return the row of an enqueued task as it is now."""
    return Job.objects.select_related("worker").get(id=UUID(result.id))


def runs_of(result: Any) -> list[Run]:
    """Return the runs of an enqueued task, the first first."""
    return list(Run.objects.filter(job_id=UUID(result.id)).order_by("epoch"))


def outcomes_of(result: Any) -> list[str]:
    """Return how the runs of an enqueued task ended."""
    return [run.outcome for run in runs_of(result)]


def finished(*results: Any, within: float = 30.0) -> None:
    """Wait until all these tasks have finished, well or not."""
    ids = [UUID(result.id) for result in results]

    def unfinished() -> int:
        return Job.objects.filter(id__in=ids).exclude(status__in=FINISHED).count()

    eventually(lambda: unfinished() == 0, within=within, what=f"the end of {len(ids)} tasks")


def running(result: Any) -> None:
    """Wait until a worker holds this task."""
    eventually(lambda: job_of(result).status == JobStatus.RUNNING, what="a claim")


def waits_for(path: Path) -> str:
    """Wait until a task has made the file *path*; return what it wrote there."""
    eventually(path.exists, what=str(path))
    return path.read_text()


def gone(*pids: int, within: float = 10.0) -> None:
    """Wait until no process has one of these numbers."""
    eventually(lambda: not any(alive(pid) for pid in pids), within=within, what=f"end of {pids}")


def lose(worker: WorkerProcess) -> None:
    """Kill a worker, and make its lease end now: tests do not wait for it."""
    worker.signal(signal.SIGKILL)
    worker.ends()
    Worker.objects.filter(pid=worker.pid).update(lease_expires_at="2000-01-01 00:00:00+00:00")


def nobody_writes() -> bool:
    """Tell whether the rows of jobs and workers are free to be written at once."""
    if connection.vendor == "sqlite":
        path = connection.settings_dict["NAME"]
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as probe:
            try:
                probe.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            return True
    try:
        with transaction.atomic():
            for model in (Job, Worker):
                list(model.objects.select_for_update(nowait=True))
    except OperationalError:
        return False
    return True


def until(condition: Callable[[], Any], *, within: float = 20.0, what: str = "") -> Any:
    """Wait for a condition on rows."""
    return eventually(condition, within=within, what=what)


def close_connections() -> None:
    """Close ours: a server cannot drop or restart what we hold."""
    connections.close_all()


# The database


@contextmanager
def altered(*there_and_back: str) -> Iterator[None]:
    """Run the first statement before the block, and the second after it, whatever happens."""
    there, back = there_and_back
    with connection.cursor() as cursor:
        cursor.execute(there)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(back)
