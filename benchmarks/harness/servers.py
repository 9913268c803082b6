"""The servers: are they there, and a database for each system, made and dropped by us."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis
from psycopg import sql

from harness.process import BenchError, manage, output_of

POSTGRESQL_URL = "postgresql://root@127.0.0.1/dayfly_bench"
REDIS_URL = "redis://127.0.0.1:6379/0"


@dataclass
class Servers:
    """What there is to measure on. Databases live as long as the `with` block."""

    workspace: Path
    postgresql_url: str | None = None
    redis_url: str | None = None
    postgresql_version: str = ""
    redis_version: str = ""
    #: One sentence for each server that is not there.
    missing: list[str] = field(default_factory=list)
    #: URL of each database made so far, by database and system.
    made: dict[tuple[str, str], str] = field(default_factory=dict)

    def find(self) -> None:
        """See which servers answer."""
        url = os.environ.get("DAYFLY_BENCH_POSTGRESQL_URL", POSTGRESQL_URL)
        try:
            with psycopg.connect(maintenance(url), connect_timeout=5) as connection:
                version = connection.execute("SHOW server_version").fetchone()
            self.postgresql_url = url
            self.postgresql_version = str(version[0]).split()[0] if version else ""
        except psycopg.OperationalError as error:
            reason = str(error).strip().splitlines()[0]
            self.missing.append(
                f"PostgreSQL does not answer ({reason}): its rows are left out. "
                "Start it, or set DAYFLY_BENCH_POSTGRESQL_URL."
            )
        url = os.environ.get("DAYFLY_BENCH_REDIS_URL", REDIS_URL)
        try:
            with redis.Redis.from_url(url, socket_timeout=5) as client:
                self.redis_version = str(client.info("server")["redis_version"])
            self.redis_url = url
        except redis.RedisError as error:
            self.missing.append(
                f"Redis does not answer ({error}): the rows of RQ are left out. "
                "Start it, or set DAYFLY_BENCH_REDIS_URL."
            )

    def has(self, place: str) -> bool:
        """Tell whether something can be measured there."""
        return (
            place == "sqlite"
            or {
                "postgresql": self.postgresql_url,
                "redis": self.redis_url,
            }.get(place)
            is not None
        )

    def database(self, place: str, system: str) -> str:
        """Return the URL of this system's own database, migrated; make it if need be."""
        key = (place, system)
        if key not in self.made:
            if place == "sqlite":
                url = f"sqlite://{self.workspace / system}.sqlite3"
            else:
                url = self.make_postgresql(system)
            self.made[key] = url
            environment = {"DAYFLY_BENCH_SYSTEM": system, "DAYFLY_BENCH_DATABASE": url}
            migrate = manage("migrate", "--run-syncdb", "--skip-checks", "--verbosity", "0")
            output_of(migrate, environment, f"migrate of {system} on {place}")
        return self.made[key]

    def make_postgresql(self, system: str) -> str:
        """Create an empty database whose name nobody else uses."""
        if self.postgresql_url is None:
            raise BenchError("there is no PostgreSQL to make a database on")
        name = f"{urlsplit(self.postgresql_url).path.lstrip('/')}_{system}_{os.getpid()}"
        with psycopg.connect(maintenance(self.postgresql_url), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return with_name(self.postgresql_url, name)

    def __enter__(self) -> Servers:
        self.find()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drop what was made. SQLite's files go with the workspace."""
        names = [
            urlsplit(url).path.lstrip("/")
            for (place, _), url in self.made.items()
            if place == "postgresql"
        ]
        if not names or self.postgresql_url is None:
            return
        with psycopg.connect(maintenance(self.postgresql_url), autocommit=True) as connection:
            for name in names:
                connection.execute(
                    sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
                )


def with_name(url: str, name: str) -> str:
    """Return the URL of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def maintenance(url: str) -> str:
    """Return the URL of the database that is always there, to make others from."""
    return with_name(url, "postgres")
