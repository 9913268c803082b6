"""A PostgreSQL server of the tests' own: with TLS, and to be stopped while a worker works."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import OperationalError, connections, transaction

from dayfly import queue
from dayfly.models import Job, Run
from tests.helpers import ROOT, environment, eventually
from tests.settings import database_from_url
from tests.workers import running_worker

ALIAS = "cluster"


def server_programs() -> Path | None:
    """Return the directory of initdb and pg_ctl."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    on_path = shutil.which("initdb")
    return next((each.parent for each in [*found, *([Path(on_path)] if on_path else [])]), None)


PROGRAMS = server_programs()
pytestmark = [
    pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL's server programs are not installed"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
    pytest.mark.timeout(240),
]


class Cluster:
    """One server, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._owner = unprivileged_user()

    @property
    def url(self) -> str:
        return f"postgresql://dayfly@127.0.0.1:{self.port}/postgres?sslmode=require"

    def make(self) -> None:
        """Make the files, with a certificate, and start."""
        shutil.chown(self.directory, self._owner)
        self._run(
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.crt",
        )  # fmt: skip
        self._run(str(PROGRAMS / "initdb"), "-D", "data", "-A", "trust", "-U", "dayfly", "-N")
        for name in ("server.key", "server.crt"):
            self._run("mv", name, f"data/{name}")
        self._run("chmod", "600", "data/server.key")
        with (self.directory / "data/postgresql.conf").open("a") as file:
            file.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nssl = on\n"
                "unix_socket_directories = ''\nfsync = off\nshared_buffers = 16MB\n"
            )
        self.start()

    def start(self) -> None:
        self._control("start", "-l", "log")

    def stop(self) -> None:
        """Stop like a crash: nobody is told."""
        self._control("stop", "-m", "immediate")

    def _control(self, *arguments: str) -> None:
        self._run(str(PROGRAMS / "pg_ctl"), "-D", "data", "-w", "-t", "60", *arguments)

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command,
            cwd=self.directory,
            user=self._owner,
            group=pwd.getpwnam(self._owner).pw_gid,
            extra_groups=[] if os.geteuid() == 0 else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"


def unprivileged_user() -> str:
    """Return who runs the server: it refuses to run as root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    names = {each.pw_name for each in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed")
    # Not below TMPDIR, which only we may be able to enter.
    directory = Path(tempfile.mkdtemp(prefix="dayfly-postgresql-", dir="/tmp"))
    cluster = Cluster(directory)
    try:
        cluster.make()
        migrate(cluster)
        yield cluster
        cluster.stop()
    finally:
        shutil.rmtree(directory)


def migrate(cluster: Cluster) -> None:
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "-v0"],
        cwd=ROOT,
        env=environment(**variables(cluster), DJANGO_SETTINGS_MODULE="tests.lifecycle.settings"),
        check=True,
        timeout=120,
    )


def variables(cluster: Cluster, name: str = "worker") -> dict[str, str]:
    """Return what leads a process to the server, under a name by which it is known there."""
    return {
        "DAYFLY_TEST_DATABASE_URL": f"{cluster.url}&application_name={name}",
        "DAYFLY_TEST_DATABASE_NAME": "postgres",
    }


@pytest.fixture
def cluster(server: Cluster, django_db_blocker: Any) -> Iterator[Cluster]:
    """The server, empty, and reachable under ALIAS."""
    settings = database_from_url(f"{server.url}&application_name=test")
    with django_db_blocker.unblock():
        connections.databases[ALIAS] = connections.configure_settings(
            {"default": connections.databases["default"], ALIAS: settings}
        )[ALIAS]
        for model in (Run, Job, Group):
            model.objects.using(ALIAS).all().delete()
        yield server
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.databases[ALIAS]


def enqueue(name: str, *arguments: Callable[[int], object], count: int) -> None:
    """Write the rows of many jobs."""
    import json

    with transaction.atomic(using=ALIAS):
        for number in range(count):
            values = [each(number) for each in arguments]
            new = queue.NewJob(
                backend_name="default", queue_name="default", priority=0,
                task_path=f"tests.lifecycle.tasks.{name}",
                arguments=json.dumps({"args": values, "kwargs": {}}), run_after=None,
            )  # fmt: skip
            queue.add(new, using=ALIAS)


def backends() -> list[tuple[int, bool]]:
    """Return pid and TLS of the server processes that workers and their children have."""
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(
            "SELECT a.pid, s.ssl FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid)"
            " WHERE application_name = 'worker'"
        )
        return list(cursor.fetchall())


def the_backend() -> int:
    """Return the one server process that an idle worker has; it speaks TLS."""
    eventually(lambda: len(backends()) == 1, what="one connection")
    ((pid, is_encrypted),) = backends()
    assert is_encrypted
    return pid


def runs() -> int:
    """Count the runs; none while the server is away."""
    try:
        return Run.objects.using(ALIAS).count()
    except OperationalError:
        connections[ALIAS].close()
        return 0


@pytest.mark.parametrize(("count", "pool"), [(1_000, False), (200, True)])
def test_children_that_use_the_orm_leave_the_parents_connection_alone(
    cluster: Cluster, count: int, pool: bool
) -> None:
    how = variables(cluster) | ({"DAYFLY_TEST_POOL": "1"} if pool else {})
    with running_worker("--concurrency=2", **how) as worker:
        before = the_backend()
        enqueue("counts_in_the_database", str, count=count)
        eventually(lambda: runs() == count, within=200, what=f"{count} runs")
        after = the_backend()

        assert after == before
        assert worker.stops() == 0

    assert Group.objects.using(ALIAS).count() == count
    assert set(Run.objects.using(ALIAS).values_list("outcome", flat=True)) == {"returned"}
    assert "The database cannot be used" not in worker.log()
    assert "SSL error" not in worker.log()
    assert len(set(Run.objects.using(ALIAS).values_list("child_pid", flat=True))) > count / 2


def test_server_that_is_stopped_and_started_during_a_drain_loses_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    path = tmp_path / "lines"
    enqueue("appends", lambda _: str(path), lambda number: number, count=2_000)
    with running_worker(
        "--concurrency=2", "--max-tasks-per-child=20", **variables(cluster)
    ) as worker:
        for done in (200, 900):
            eventually(lambda done=done: runs() >= done, within=100)
            connections[ALIAS].close()
            cluster.stop()
            worker.says("The database cannot be used", times=1 + (done > 200))
            cluster.start()
            worker.says("The database is back after", times=1 + (done > 200))
        eventually(lambda: runs() >= 2_000, within=100, what="2,000 runs")
        eventually(lambda: unfinished() == 0)
        assert worker.stops() == 0

    jobs, all_runs = Job.objects.using(ALIAS), Run.objects.using(ALIAS)
    assert Counter(path.read_text().split()) == {str(number): 1 for number in range(2_000)}
    assert set(jobs.values_list("status", "attempts", "epoch")) == {("SUCCESSFUL", 1, 1)}
    assert set(all_runs.values_list("outcome", "attempt")) == {("returned", 1)}
    assert (jobs.count(), all_runs.count()) == (2_000, 2_000)


def unfinished() -> int:
    return Job.objects.using(ALIAS).exclude(status__in=["SUCCESSFUL", "FAILED"]).count()


def test_worker_waits_for_a_server_that_is_away_and_keeps_its_outcomes(
    cluster: Cluster, tmp_path: Path
) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    enqueue("waits", lambda _: str(mark), lambda _: str(go), count=1)
    with running_worker("--concurrency=1", **variables(cluster)) as worker:
        eventually(mark.exists)
        child = int(mark.read_text())
        connections[ALIAS].close()
        cluster.stop()
        go.touch()
        worker.says("Outcomes are kept and written when it is back")
        cluster.start()
        eventually(lambda: runs() == 1)
        assert worker.stops() == 0

    (run,) = Run.objects.using(ALIAS)
    assert (run.outcome, run.child_pid) == ("returned", child)


def test_worker_that_is_stopped_while_the_server_is_away_ends(
    cluster: Cluster, tmp_path: Path
) -> None:
    with running_worker("--concurrency=1", **variables(cluster)) as worker:
        the_backend()
        connections[ALIAS].close()
        cluster.stop()
        try:
            worker.says("The database cannot be used")
            assert worker.stops() == 0
        finally:
            cluster.start()
