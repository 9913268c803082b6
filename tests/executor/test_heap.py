"""What is done to the heap of a process before it forks, each in a process of its own."""

from __future__ import annotations

import gc
import sqlite3
import subprocess
import sys
import types
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest

from dayfly.executor import Call, Executor, Outcome, Source, heap, load_value, memory
from tests.helpers import child_runs, collect, open_fds

#: Functions, each referred to once; some hundred pages hold a thousand of them.
hoard: list[object] = []


def refer_to_all() -> int:
    """Return what the child had to copy, in bytes, to take a reference of each."""
    before = memory.thorough()
    kept = list(hoard)
    after = memory.thorough()
    assert before is not None
    assert after is not None
    assert before.uss_bytes is not None
    assert after.uss_bytes is not None
    return after.uss_bytes - before.uss_bytes - sys.getsizeof(kept)


def bytes_copied(immortal: bool) -> int:
    """Fork a child that refers to all of 50,000 functions."""
    hoard.extend(lambda: None for _ in range(50_000))
    with Executor(standby=0) as executor:
        executor.warm_up(immortal=immortal)
        executor.submit(Call.of(refer_to_all))
        (report,) = collect(executor, 1)
    assert report.outcome is Outcome.RETURNED, report.message
    return load_value(report)


def live_on() -> list[object]:
    """Do all kinds of things with what is immortal; return what came of it."""
    gone: list[str] = []

    class Thing:
        pass

    thing = Thing()
    weakref.finalize(thing, gone.append, "instance")
    weakref.finalize(Thing, gone.append, "class")

    def function(a: int, b: int = 2) -> int:
        return a + b

    heap.make_immortal()
    gc.freeze()
    references = sys.getrefcount(function), sys.getrefcount(function.__code__)
    more = [function] * 10, [function.__code__] * 10
    is_counted = (sys.getrefcount(function), sys.getrefcount(function.__code__)) != references
    del more
    Thing.value = function(1)  # type: ignore[attr-defined]
    del thing, Thing
    gc.unfreeze()
    gc.collect()
    try:
        raise ValueError(function(3))
    except ValueError as error:
        caught = str(error)
    return [is_counted, caught, gone]


class Lazy:
    """Pretends to be what it has not loaded yet, as lazy objects do: asking for its class loads that."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise LookupError("somebody asked")


def keeps_something_lazy() -> bool:
    kept = Lazy()
    heap.make_immortal()
    return type(kept) is Lazy


def closes_a_database(path: str) -> list[str]:
    """Return what is open of a database that was closed after all was made immortal."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a)")
    connection.execute("SELECT a FROM t").fetchall()
    heap.freeze(immortal=True)
    connection.close()
    return [target for target in open_fds().values() if target.startswith(path)]


def counts_of_parts() -> list[int]:
    """Return how often what definitions consist of is referred to, or is said to be."""
    scale = 1_000_003

    def outer(text: str = "default" * 2) -> object:
        def inner() -> int:
            return len(text) * scale

        return inner

    class Thing:
        size = 2_000_003

    heap.make_immortal()
    inner_code = next(one for one in outer.__code__.co_consts if type(one) is types.CodeType)
    namespace = next(one for one in gc.get_referents(Thing) if type(one) is dict)
    parts = [
        outer.__code__.co_consts,
        inner_code,
        inner_code.co_consts,
        outer.__closure__,
        outer.__defaults__,
        Thing.__mro__,
        namespace,
    ]
    return [sys.getrefcount(one) for one in parts]


def test_children_do_not_copy_what_they_only_refer_to() -> None:
    mortal = child_runs(bytes_copied, False)
    immortal = child_runs(bytes_copied, True)

    assert mortal > 4 << 20  # type: ignore[operator]
    if heap.can_be_immortal():
        assert immortal < 1 << 20  # type: ignore[operator]
    else:
        assert immortal > 4 << 20  # type: ignore[operator]


def test_life_goes_on_with_immortal_objects() -> None:
    is_counted, caught, gone = child_runs(live_on)  # type: ignore[misc]

    assert is_counted != heap.can_be_immortal()
    assert caught == "5"
    assert gone == (["instance"] if heap.can_be_immortal() else ["instance", "class"])


def test_what_code_consists_of_is_immortal_too() -> None:
    counts: list[int] = child_runs(counts_of_parts)  # type: ignore[assignment]

    assert [count >= 1 << 31 for count in counts] == [heap.can_be_immortal()] * 7


@pytest.mark.parametrize("mode", [(), ("-X", "dev")], ids=["as it is", "development mode"])
def test_interpreter_with_immortal_objects_ends_well(mode: tuple[str, ...]) -> None:
    program = """
import gc
import asyncio, decimal, enum, json, logging, typing, unittest.mock
import django.contrib.auth, django.db.models, django.forms
from dayfly.executor import heap, holes

class Thing:
    def __del__(self):
        print("end of a thing")

thing = Thing()
heap.freeze(immortal=True)
holes.fill()
gc.unfreeze()
"""

    done = subprocess.run(
        [sys.executable, *mode, "-c", program], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "end of a thing\n", "")


def test_what_is_lazy_is_left_so() -> None:
    assert child_runs(keeps_something_lazy) is True


def test_what_owns_something_can_end(tmp_path: Path) -> None:
    """A cached statement that was never freed kept the file open, and forks spoiled it."""
    assert child_runs(closes_a_database, str(tmp_path / "db.sqlite3")) == []


@pytest.mark.parametrize("immortal", [True, False])
def test_template_holds_for_good_what_it_loaded(immortal: bool) -> None:
    source = Source(preload=("tests.calls",), immortal=immortal)
    with Executor(launcher="template", source=source, standby=0) as executor:
        executor.submit(Call.of(references_to_executor))
        (report,) = collect(executor, 1)

    is_immortal = load_value(report) >= 1 << 31
    assert is_immortal == (immortal and heap.can_be_immortal())


def references_to_executor() -> int:
    return sys.getrefcount(sys.modules["dayfly.executor"].__dict__)


@pytest.mark.parametrize(
    ("version", "flags", "name", "expected"),
    [
        ((3, 11, 9), "", "cpython", False),
        ((3, 12, 0), "", "cpython", True),
        ((3, 13, 5), "", "cpython", True),
        ((3, 13, 5), "t", "cpython", False),
        ((3, 13, 5), "d", "cpython", False),
        ((3, 14, 0), "", "cpython", True),
        ((3, 14, 0), "t", "cpython", False),
        ((3, 15, 0), "", "cpython", False),
        ((3, 13, 5), "", "pypy", False),
    ],
)
def test_only_where_it_is_known_how(
    version: tuple[int, ...],
    flags: str,
    name: str,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        heap,
        "sys",
        SimpleNamespace(
            version_info=version,
            abiflags=flags,
            implementation=SimpleNamespace(name=name),
            byteorder="little",
            maxsize=sys.maxsize,
        ),
    )

    assert heap.can_be_immortal() is expected
