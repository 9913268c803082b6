"""One shape for all pools: submit calls by name, take the values of those that are done."""

from __future__ import annotations

import json
import queue
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

#: How long a call may take to end before the pool counts as stuck.
STUCK_SECONDS = 60.0


class CallFailed(Exception):
    """A call that should have returned did not."""


class Pool(Protocol):
    """What is measured."""

    def submit(self, name: str, *arguments: object) -> None:
        """Have the application's function *name* called in a child."""

    def take(self, seconds: float) -> list[Any]:
        """Return the values of calls that are done; wait up to *seconds* for the first."""

    def standby_pids(self) -> list[int]:
        """Return the children that were born ahead."""

    def close(self) -> None:
        """End all children."""


class LoopPool:
    """dayfly's face for daemons: `Executor`."""

    def __init__(
        self, executor: Any, module: str, *, by_name: bool = False, in_detail: bool = False
    ) -> None:
        self.executor = executor
        self._module = module
        self._by_name = by_name
        self._in_detail = in_detail
        self._running: dict[str, None] = {}

    def submit(self, name: str, *arguments: object) -> None:
        """See Pool."""
        from dayfly.executor import Call

        if self._by_name:
            payload = json.dumps([self._module, name, arguments]).encode()
            call = Call(target="bench_executor.by_name.serve", payload=payload)
        else:
            call = Call.of(function_of(self._module, name), *arguments)
        self.executor.submit(replace(call, memory_in_detail=self._in_detail))

    def take(self, seconds: float) -> list[Any]:
        """See Pool."""
        from dayfly.executor import Outcome, load_value

        found = []
        for report in self.executor.poll(seconds):
            if report.outcome is not Outcome.RETURNED:
                raise CallFailed(report.message)
            found.append(json.loads(report.value) if self._by_name else load_value(report))
        self.executor.take_exits()
        return found

    def standby_pids(self) -> list[int]:
        """See Pool."""
        return [pid for pid in self.executor.child_pids if is_on_standby(pid)]

    def close(self) -> None:
        """See Pool."""
        self.executor.close()


class FuturesPool:
    """Whatever returns futures."""

    def __init__(
        self, submit: Callable[..., Any], close: Callable[[], object], module: ModuleType
    ) -> None:
        self._submit = submit
        self._close = close
        self._module = module
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def submit(self, name: str, *arguments: object) -> None:
        """See Pool."""
        future = self._submit(getattr(self._module, name), *arguments)
        future.add_done_callback(self._done.put)

    def take(self, seconds: float) -> list[Any]:
        """See Pool."""
        found = []
        try:
            found.append(self._done.get(timeout=seconds).result())
            while True:
                found.append(self._done.get_nowait().result())
        except queue.Empty:
            return found

    def standby_pids(self) -> list[int]:
        """See Pool: none of these forks ahead of its calls in a way that can be seen."""
        return []

    def close(self) -> None:
        """See Pool."""
        self._close()


class MultiprocessingPool:
    """`multiprocessing.Pool`, which has callbacks and no futures."""

    def __init__(self, pool: Any, module: ModuleType) -> None:
        self._pool = pool
        self._module = module
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def submit(self, name: str, *arguments: object) -> None:
        """See Pool."""
        self._pool.apply_async(
            getattr(self._module, name),
            arguments,
            callback=self._done.put,
            error_callback=self._done.put,
        )

    def take(self, seconds: float) -> list[Any]:
        """See Pool."""
        found = []
        try:
            found.append(self._done.get(timeout=seconds))
            while True:
                found.append(self._done.get_nowait())
        except queue.Empty:
            pass
        for value in found:
            if isinstance(value, BaseException):
                raise CallFailed(str(value)) from value
        return found

    def standby_pids(self) -> list[int]:
        """See Pool: its workers wait in it, but nothing tells them from those that work."""
        return []

    def close(self) -> None:
        """See Pool."""
        self._pool.terminate()
        self._pool.join()


def function_of(module: str, name: str) -> Callable[..., Any]:
    """Return a function of the application, which this process has loaded."""
    return getattr(sys.modules[module], name)


def is_on_standby(pid: int) -> bool:
    """Tell whether a child of dayfly is ready for its first call: its title says so."""
    try:
        return b"(standby)" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
