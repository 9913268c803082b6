"""
Parent side: children are looked after while PostgreSQL works on a statement.

Otherwise a worker with short tasks would let its children stand idle for as long as outcomes are
written and jobs are claimed, and no limit of time would act while the database does not answer.
No thread: psycopg 3 runs a statement as a generator, which says what it wants to wait for, and
the wait is ours. Other drivers wait as they always did.
"""

from __future__ import annotations

import select
from collections.abc import Generator
from typing import Any

from dayfly.executor import Executor

#: What psycopg's generators ask to wait for, and what poll(2) calls that. Source: psycopg's enum Wait.
EVENTS = {1: select.POLLIN, 2: select.POLLOUT, 3: select.POLLIN | select.POLLOUT}


def look_after_children(driver: Any, executor: Executor) -> None:
    """Have *executor* looked after whenever the connection *driver* waits for its server."""
    wait_of_driver = getattr(driver, "wait", None)
    if wait_of_driver is None or not hasattr(driver, "pgconn"):
        return

    def wait(statement: Any, *args: Any, **kwargs: Any) -> Any:
        return wait_of_driver(Served(statement, driver, executor), *args, **kwargs)

    driver.wait = wait


def leave_alone(driver: Any) -> None:
    """Have the connection *driver*, if it is one, wait by itself again, for a host that goes on with it."""
    if driver is not None:
        getattr(driver, "__dict__", {}).pop("wait", None)


class Served:
    """
    A statement under way. What it asks its driver to wait for is there by the time that it asks.

    It stands in for the generator and not for the driver's wait, which goes on to care for lost
    connections and for Ctrl-C.
    """

    def __init__(
        self, statement: Generator[int, Any, Any], driver: Any, executor: Executor
    ) -> None:
        self._statement = statement
        self._driver = driver
        self._executor = executor

    def __iter__(self) -> Served:
        return self

    def __next__(self) -> int:
        return self._when_ready(next(self._statement))

    def send(self, ready: Any) -> int:
        """Go on with what the server was ready for."""
        return self._when_ready(self._statement.send(ready))

    def throw(self, *error: Any) -> int:
        """Let the statement deal with what befell its driver."""
        return self._when_ready(self._statement.throw(*error))

    def close(self) -> None:
        """Give the statement up."""
        self._statement.close()

    def _when_ready(self, wanted: int) -> int:
        poll = select.poll()
        server = self._driver.pgconn.socket
        poll.register(server, EVENTS[wanted])
        poll.register(self._executor.fileno(), select.POLLIN)
        while True:
            seconds = self._executor.seconds_to_next_event(leave_reports=True)
            ready = poll.poll(None if seconds is None else seconds * 1000)
            if any(fd == server for fd, _ in ready):
                return wanted
            self._executor.tend()
