"""The rules of the house (docs/design.md), read from the source by ast. Nothing is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SOURCE = Path(__file__).resolve().parent.parent / "src" / "dayfly"
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
#: Too long as they stand; each is to be split, and leaves this list then.
TOO_LONG: set[str] = set()
SIDES = re.compile(r"^(Parent side|Child side|Both sides): |^Crosses the fork: ")
#: What opens a package says what the package is for.
NO_SIDE = {"executor/__init__.py", "worker/__init__.py"}
LOCKING = ("FOR UPDATE", "SKIP LOCKED", "BEGIN IMMEDIATE", "LOCK TABLE", "select_for_update")


@dataclass(frozen=True)
class Module:
    """One source file."""

    path: str

    @cached_property
    def text(self) -> str:
        return (SOURCE / self.path).read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def imports(self) -> set[str]:
        """Full names of what is imported anywhere in it, `from` imports with the name they take."""
        found = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path}:{node.lineno}: a relative import"
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
        return found

    def imports_below(self, package: str) -> set[str]:
        return {name for name in self.imports if (name + ".").startswith(package + ".")}

    @property
    def called(self) -> Iterator[tuple[int, str]]:
        """Line and dotted name of every call."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield node.lineno, ast.unparse(node.func)

    @property
    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    @property
    def strings(self) -> Iterator[tuple[int, str]]:
        """Line and value of every piece of text that is no docstring."""
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(self.tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and id(node) not in docstrings:
                yield node.lineno, node.value


MODULES = [Module(str(path.relative_to(SOURCE))) for path in sorted(SOURCE.rglob("*.py"))]


def inside(*places: str) -> list[Module]:
    return [module for module in MODULES if module.path.startswith(places)]


def outside(*places: str) -> list[Module]:
    return [module for module in MODULES if not module.path.startswith(places)]


def found_in(modules: list[Module], look: Callable[[Module], Collection[T]]) -> dict[str, list[T]]:
    """Return what *look* finds, by the path of the module; nothing for those where it finds nothing."""
    assert modules, "no module to look at"
    return {module.path: sorted(found) for module in modules if (found := look(module))}


def test_executor_knows_neither_django_nor_the_rest_of_dayfly() -> None:
    def foreign(module: Module) -> set[str]:
        packages = ("django", "django_tasks", "asgiref", "dayfly")
        names = {name for package in packages for name in module.imports_below(package)}
        # The package's own module imports nothing, and is loaded with any part of it.
        return names - module.imports_below("dayfly.executor") - {"dayfly.__version__"}

    assert found_in(inside("executor/"), foreign) == {}


def test_models_import_outcomes_fields_and_ids_only() -> None:
    (models,) = inside("models.py")

    assert models.imports_below("dayfly") == {
        "dayfly.executor.outcome.Outcome",
        "dayfly.fields.MomentField",
        "dayfly.fields.NameField",
        "dayfly.ids.uuid7",
    }


def test_queue_knows_neither_backend_nor_executor() -> None:
    def upwards(module: Module) -> set[str]:
        executor = module.imports_below("dayfly.executor") - {"dayfly.executor.outcome.Outcome"}
        return executor | module.imports_below("dayfly.backend")

    assert found_in(inside("queue/"), upwards) == {}


def test_nothing_imports_the_worker_but_commands() -> None:
    modules = outside("worker/", "management/")

    assert found_in(modules, lambda module: module.imports_below("dayfly.worker")) == {}


def test_nothing_imports_commands() -> None:
    modules = outside("management/")

    assert found_in(modules, lambda module: module.imports_below("dayfly.management")) == {}


def test_the_queue_alone_locks_rows() -> None:
    def locking(module: Module) -> list[tuple[int, str]]:
        in_text = [
            (line, word)
            for line, text in module.strings
            for word in LOCKING
            if word in text.upper()
        ]
        return in_text + [each for each in module.called if "select_for_update" in each[1]]

    assert found_in(outside("queue/"), locking) == {}
    # Else the line above would prove nothing.
    assert "queue/claims.py" in found_in(inside("queue/"), locking)


def test_one_module_forks() -> None:
    def forking(module: Module) -> list[str]:
        return [name for _, name in module.called if re.fullmatch(r"(os|posix)\.fork(pty)?", name)]

    assert set(found_in(MODULES, forking)) == {"executor/fork.py"}


def test_three_modules_install_signal_handlers() -> None:
    """The worker's, the one that takes them away again in a child, and that of a child's limits."""
    pattern = r"_?signal\.(signal|set_wakeup_fd|siginterrupt)"

    def installing(module: Module) -> list[str]:
        return [name for _, name in module.called if re.fullmatch(pattern, name)]

    assert set(found_in(MODULES, installing)) == {
        "worker/stop.py",
        "executor/tidy.py",
        "executor/confine.py",
    }


def test_one_module_starts_a_thread() -> None:
    """
    A process that forks has one thread: a child is a copy of one, with the locks of all.

    The face for `concurrent.futures` needs a thread; nothing but that face imports its module.
    """
    starters = ("Thread", "Timer", "ThreadPoolExecutor", "start_new_thread")

    def starting(module: Module) -> list[str]:
        return [name for _, name in module.called if name.rpartition(".")[2] in starters]

    def importing(module: Module) -> list[str]:
        return [name for name in module.imports if "pool_thread" in name or "executor.pool" in name]

    assert set(found_in(MODULES, starting)) == {"executor/pool_thread.py"}
    assert set(found_in(MODULES, importing)) == {"executor/__init__.py", "executor/pool.py"}


def test_only_a_child_imports_what_a_row_names() -> None:
    by_path = ("import_string", "importlib.import_module", "pickle.loads")

    def importing(module: Module) -> list[str]:
        return [name for _, name in module.called if name in by_path]

    # ground.preload imports one module of ours, by a constant; the flags name a policy.
    parents = inside("worker/", "management/", "queue/")
    assert set(found_in(parents, importing)) == {
        "worker/ground.py",
        "management/workercommand.py",
    }


def test_first_line_says_the_side_of_the_fork() -> None:
    def silent(module: Module) -> list[str]:
        first = (ast.get_docstring(module.tree) or "").partition("\n")[0]
        return [] if module.path in NO_SIDE or SIDES.match(first) else [first]

    assert found_in(inside("executor/", "worker/"), silent) == {}


def test_every_module_says_what_it_is() -> None:
    def mute(module: Module) -> list[str]:
        is_empty = not module.text.strip()
        return [] if is_empty or ast.get_docstring(module.tree) else ["no docstring"]

    assert found_in(outside("migrations/"), mute) == {}


def test_no_module_is_too_long() -> None:
    def too_long(module: Module) -> list[int]:
        lines = module.text.count("\n")
        return [lines] if lines > MAX_MODULE_LINES else []

    assert set(found_in(MODULES, too_long)) == TOO_LONG


def test_no_function_is_too_long() -> None:
    def too_long(module: Module) -> list[str]:
        return [
            function.name
            for function in module.functions
            # Declarations of flags, one after the other: a table.
            if function.name != "add_arguments"
            and (function.end_lineno or 0) - function.lineno >= MAX_FUNCTION_LINES
        ]

    assert found_in(MODULES, too_long) == {}
