"""What the children of pools do in tests, beside tests/calls.py."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NoReturn

from dayfly.executor import IsolatedExecutor
from tests import calls
from tests.helpers import alive

#: A pool that children find in what they inherited.
inherited_pool: list[IsolatedExecutor] = []
initialized_with: list[object] = []


def add(left: int, right: int = 0) -> int:
    return left + right


def takes_limits(limits: str, fn: str = "", self: str = "") -> list[str]:
    return [limits, fn, self]


def initialize(*values: object) -> None:
    initialized_with.extend(values)


def what_was_initialized() -> tuple[int, list[object]]:
    return os.getpid(), initialized_with


def fails_to_initialize(log: str) -> NoReturn:
    with open(log, "a") as file:
        file.write("x")
    raise LookupError("no such model")


def waits_forever() -> NoReturn:
    """Wait to be ended; not quite for ever, so that a test that failed can be left."""
    time.sleep(90)
    raise TimeoutError("nobody ended this call")


def marks_and_waits(mark: str) -> NoReturn:
    Path(mark).write_text(str(os.getpid()))
    waits_forever()


def ignores_sigterm_the_first_time(mark: str, go: str) -> str:
    if Path(mark).exists():
        calls.waits_for(go)
        return "again"
    calls.ignores_sigterm(mark)
    raise TimeoutError("nobody killed this call")


def submits_to_inherited_pool() -> Any:
    return inherited_pool[0].submit(add, 1).result()


def uses_a_pool_of_its_own() -> list[int]:
    with IsolatedExecutor(max_workers=2) as pool:
        return list(pool.map(add, range(4)))


class Unspeakable(Exception):
    """Pickled with one argument, made with two: fails where it is unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)
        self.two = two


class WithAttributes(Exception):
    pass


class NotPicklable(Exception):
    def __reduce__(self) -> NoReturn:
        raise RuntimeError("not me")


class MuteWhenUnpickled(Exception):
    def __reduce__(self) -> Any:
        return calls.raises_unspeakable, ()


def raises_mute_when_unpickled() -> NoReturn:
    raise MuteWhenUnpickled


def raises_unspeakable() -> NoReturn:
    raise Unspeakable("one", "two")


def raises_not_picklable() -> NoReturn:
    raise NotPicklable("secret plan")


def raises_with_attributes() -> NoReturn:
    error = WithAttributes("why")
    error.code = 42  # type: ignore[attr-defined]
    error.add_note("a note")
    raise error


def raises_group() -> NoReturn:
    raise ExceptionGroup("several", [ValueError(1), TypeError(2)])


def refuses_to_be_made() -> NoReturn:
    raise RuntimeError("cannot be unpickled here")


class BrokenValue:
    def __reduce__(self) -> Any:
        return refuses_to_be_made, ()


def returns_broken_value() -> BrokenValue:
    return BrokenValue()


def exits_while_unpickled() -> NoReturn:
    raise SystemExit(3)


class ExitingValue:
    def __reduce__(self) -> Any:
        return exits_while_unpickled, ()


def returns_exiting_value() -> ExitingValue:
    return ExitingValue()


def waits_for_if(path: str | None) -> None:
    if path is not None:
        while not Path(path).exists():
            time.sleep(0.01)


def pid_of(item: object) -> int:
    return os.getpid()


def dies_at(item: int, fatal: int) -> int:
    if item == fatal:
        os._exit(1)
    return item


def still_there(pid: int) -> bool:
    return alive(pid)


def raises_kind(kind: type[BaseException]) -> NoReturn:
    raise kind("as asked")
