"""The scripts that start from a bare Python: environments, the gate's score, the README's commands."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


MODULES = ("debian", "environment", "gate", "interpreters", "matrix", "qemu", "servers", "steps")


@pytest.fixture(scope="module")
def ci():
    """Import the modules of .ci/ as its scripts do; nobody else sees these common names."""
    others = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    sys.path.insert(0, str(ROOT / ".ci"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / ".ci"))
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.modules.update(others)


@pytest.fixture
def environment(ci, monkeypatch, tmp_path) -> ModuleType:
    """The module, with a checkout of its own in which nothing is really installed."""
    module = ci("environment")
    (tmp_path / "pyproject.toml").write_text("[project]")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


@pytest.fixture
def installs(environment, monkeypatch) -> list[list[str]]:
    """What would have been installed."""
    done: list[list[str]] = []

    def make(directory: Path, python: str, version: str) -> None:
        (directory / "bin").mkdir(parents=True, exist_ok=True)
        (directory / "bin/python").touch()

    monkeypatch.setattr(environment, "make", make)
    monkeypatch.setattr(environment, "install", lambda python, groups, *rest: done.append(groups))
    return done


def test_environment_is_used_again(environment, installs) -> None:
    first = environment.prepare("test", ["test"])
    second = environment.prepare("test", ["test"])

    assert first == second
    assert installs == [["test"]]


@pytest.mark.parametrize("changed", ["groups", "dependencies", "django"])
def test_environment_is_installed_anew_when_something_changed(
    environment, installs, changed
) -> None:
    environment.prepare("test", ["test"])
    if changed == "dependencies":
        (environment.ROOT / "pyproject.toml").write_text("[project]\nname = 'more'")
    groups = ["test", "mysql"] if changed == "groups" else ["test"]
    environment.prepare("test", groups, django="5.2" if changed == "django" else "")

    assert installs == [["test"], groups]


def test_half_installed_environment_is_not_trusted(environment, installs, monkeypatch) -> None:
    environment.prepare("test", ["test"])

    def fail(*arguments: object) -> None:
        raise environment.CannotPrepare("no network")

    monkeypatch.setattr(environment, "install", fail)
    with pytest.raises(environment.CannotPrepare):
        environment.prepare("test", ["test", "mysql"])
    monkeypatch.setattr(
        environment, "install", lambda python, groups, *rest: installs.append(groups)
    )
    environment.prepare("test", ["test"])

    assert installs == [["test"], ["test"]]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            [
                "WARNING: Retrying after connection broken by 'NewConnectionError'",
                "ERROR: No match",
            ],
            "the package index cannot be reached",
        ),
        (
            ["Collecting x", "ERROR: No matching distribution found for x"],
            "distribution found for x",
        ),
        ([], "pip gave no reason"),
    ],
)
def test_failed_installation_is_explained_in_a_sentence(environment, lines, sentence) -> None:
    explained = environment.explain("Dayfly", lines)

    assert sentence in explained
    assert "\n" not in explained


def test_other_systems_are_told_at_once(environment, monkeypatch) -> None:
    monkeypatch.setattr(environment.sys, "platform", "darwin")

    with pytest.raises(environment.CannotPrepare, match="runs on Linux, and this is darwin"):
        environment.prepare("test", ["test"])


def test_code_of_another_checkout_does_not_leak_in(environment, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")

    variables = environment.environment_variables(MORE="1")

    assert "PYTHONPATH" not in variables
    assert variables["MORE"] == "1"


def load_program(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), ROOT / f"{path}.py")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


@pytest.fixture
def run(ci) -> ModuleType:
    """tests/run.py, as a module."""
    return load_program("tests/run")


def test_unknown_database_is_refused_before_anything_is_installed(run, ci, monkeypatch) -> None:
    monkeypatch.setenv("DAYFLY_TEST_DATABASE_URLS", "sqlite://,oracle://me@there/name")

    with pytest.raises(ci("environment").CannotPrepare, match="oracle"):
        run.database_urls()


def test_one_failing_database_fails_the_whole(run, monkeypatch, capsys) -> None:
    monkeypatch.setenv("DAYFLY_TEST_DATABASE_URLS", "sqlite://, mysql://me@there/name")
    monkeypatch.setattr(sys, "argv", ["run.py", "-x", "--group", "example"])
    asked = []
    monkeypatch.setattr(
        run.environment, "prepare", lambda name, groups, django: asked.append(groups) or "python"
    )
    tested = []
    monkeypatch.setattr(
        run,
        "passes",
        lambda python, url, arguments: tested.append((url, arguments)) or url == "sqlite://",
    )

    code = run.main()

    assert code == 1
    assert asked == [["test", "example", "mysql"]]
    # What touches no database ran with the first.
    assert tested == [
        ("sqlite://", ["-x"]),
        ("mysql://me@there/name", [*run.WITHOUT_DATABASE, "-x"]),
    ]
    printed = capsys.readouterr().out
    assert "LEFT OUT: PostgreSQL." in printed
    assert "FAILED on: MariaDB/MySQL." in printed


def test_what_touches_no_database_can_be_left_out(run, monkeypatch) -> None:
    monkeypatch.setenv("DAYFLY_TEST_DATABASE_URLS", "postgresql://me@there/name")
    monkeypatch.setattr(sys, "argv", ["run.py", "--only-with-database", "-x"])
    monkeypatch.setattr(run.environment, "prepare", lambda name, groups, django: "python")
    tested = []
    monkeypatch.setattr(
        run, "passes", lambda python, url, arguments: tested.append(arguments) or True
    )

    assert run.main() == 0
    assert tested == [[*run.WITHOUT_DATABASE, "-x"]]


@pytest.mark.parametrize(
    ("versions", "of_readme", "expected"),
    [
        (["3.13", "3.11", "3.12"], "3.11", {"3.13"}),
        (["3.13", "3.11", "3.12"], "3.13", {"3.13", "3.11"}),
        (["3.13", "3.12", "3.14"], None, {"3.13", "3.12"}),
        (["3.12"], "3.11", {"3.12"}),
    ],
)
def test_newest_and_oldest_python_run_everything(ci, versions, of_readme, expected) -> None:
    pairs = [(version, "6.0") for version in versions]

    assert ci("matrix").versions_for_all(pairs, of_readme) == expected


P311, P312, P313 = ("3.11", "5.2"), ("3.12", "6.0"), ("3.13", "6.1")


@pytest.mark.parametrize(
    ("pairs", "of_readme", "expected"),
    [
        ([P313, P311, P312], "3.11", {P313: ["postgresql"], P311: [], P312: ["mysql"]}),
        ([P313, P311, P312], None, {P313: ["postgresql"], P311: ["sqlite"], P312: ["mysql"]}),
        ([P313, P311, P312], "3.13", {P313: ["postgresql"], P311: ["sqlite"], P312: ["mysql"]}),
        ([P313], "3.13", {P313: ["postgresql", "mysql"]}),
        ([P313], None, {P313: ["postgresql", "sqlite", "mysql"]}),
        ([P311], "3.11", {P311: ["postgresql", "mysql"]}),
    ],
)
def test_each_pair_and_each_database_is_tested(ci, pairs, of_readme, expected) -> None:
    assert ci("matrix").databases(pairs, of_readme=of_readme) == expected


def test_every_pair_can_be_tested_on_every_database(ci) -> None:
    every = ["sqlite", "postgresql", "mysql"]

    found = ci("matrix").databases([P313, P311], of_readme="3.11", full=True)

    assert found == {P313: every, P311: every[1:]}


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], "{}.{}".format(*sys.version_info[:2])), (["Tests:"], None)],
)
def test_gate_knows_what_the_readme_has_tested(ci, words, expected, monkeypatch, tmp_path) -> None:
    (tmp_path / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert ci("gate").version_of_readme(ci("steps").Score(words)) == expected


@pytest.mark.parametrize("title", ["Run it", "Test it"])
def test_readme_has_a_command_of_one_line(ci, title) -> None:
    command = ci("gate").readme_command(title)

    program, script = command.split()
    assert program == "python3"
    assert (ROOT / script).is_file()


def test_gate_counts_what_pytest_says(ci) -> None:
    steps = ci("steps")
    step = steps.Step(title="tests")

    for line in (
        "tests/test_a.py ..F 3 failed in words of a test",
        "=========== 2 failed, 40 passed, 1 skipped, 1 error in 12.34s (0:00:12) ===========",
        "==================== 7 passed in 0.50s ====================",
        "==================== no tests ran in 0.01s ====================",
    ):
        steps.count(step, line)

    assert step.tests == {"failed": 3, "passed": 47, "skipped": 1}


@pytest.mark.parametrize(
    ("code", "last_line", "exit_code"),
    [
        ("print('=== 3 passed in 0.10s ===')", "3 passed, 0 failed", 0),
        (
            "print('=== 1 failed, 3 passed in 0.10s ==='); raise SystemExit(1)",
            "3 passed, 1 failed",
            1,
        ),
        ("raise SystemExit(2)", "0 passed, 1 failed", 1),
    ],
)
def test_gate_fails_when_a_step_does(ci, capsys, code, last_line, exit_code) -> None:
    score = ci("steps").Score()
    score.command("A step", [sys.executable, "-c", code])

    assert score.finish() == exit_code
    assert capsys.readouterr().out.splitlines()[-1] == last_line


def test_gate_that_runs_nothing_fails(ci, capsys) -> None:
    score = ci("steps").Score(["no such step"])
    score.command("A step", [sys.executable, "-c", ""])

    assert score.finish() == 1
    assert "no step's title" in capsys.readouterr().out


def test_interpreter_that_does_not_work_is_not_found(ci, monkeypatch, tmp_path) -> None:
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\necho 'python3.12: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setattr(os, "get_exec_path", lambda: [str(tmp_path)])
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))

    assert ci("interpreters").find("3.12") is None


def test_server_elsewhere_is_not_started(ci, monkeypatch) -> None:
    servers = ci("servers")
    monkeypatch.setitem(servers.URLS, "postgresql", "postgresql://me@db.example.invalid/name")

    with pytest.raises(servers.NotThere, match=r"db\.example\.invalid:5432"):
        servers.make_ready("postgresql")


def test_stopped_server_is_started(ci, monkeypatch) -> None:
    servers = ci("servers")
    started = []
    monkeypatch.setattr(servers, "accepts", lambda address: bool(started))
    monkeypatch.setitem(servers.START, "mysql", lambda: started.append("mysql"))

    assert servers.make_ready("mysql") == servers.URLS["mysql"]
    assert started == ["mysql"]


def test_newest_debian_is_left_out_by_whoever_may_not_make_it(
    ci, monkeypatch, capsys, tmp_path
) -> None:
    monkeypatch.setattr(ci("debian"), "ROOT", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    score = ci("steps").Score()

    ci("gate").test_newest(score, full=False)

    assert score.steps == []
    assert "LEFT OUT: Newest Debian: Python 3.14 and MySQL: the newest" in capsys.readouterr().out


def test_newest_debian_is_made_once(ci, monkeypatch, tmp_path) -> None:
    debian = ci("debian")
    monkeypatch.setattr(debian, "ROOT", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(debian.shutil, "which", lambda name: f"/usr/bin/{name}")
    made = []

    def run(command: list[str]) -> None:
        made.append(command)
        (tmp_path / ".cache/debian/etc").mkdir()

    monkeypatch.setattr(debian.servers, "run", run)

    assert debian.make_ready() == debian.make_ready() == tmp_path / ".cache/debian"
    ((program, *_, suite, directory, _mirror),) = made
    assert (program, suite, directory) == ("debootstrap", "sid", str(tmp_path / ".cache/debian"))


def test_command_in_the_newest_debian_keeps_its_words_apart(ci, tmp_path) -> None:
    *program, script = ci("debian").command(tmp_path / "a place", "python3.14", "-k", "one or two")

    assert program[:2] == ["unshare", "--mount"]
    assert script.splitlines()[-1] == (
        f"exec chroot '{tmp_path}/a place' env --chdir {ROOT} python3.14 -k 'one or two'"
    )


def test_machine_that_cannot_have_a_virtual_one_leaves_its_tests_out(
    ci, monkeypatch, capsys, tmp_path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    gate = ci("gate")
    score = ci("steps").Score()

    gate.test_kernel(score, {gate.MAIN_PAIR: sys.executable}, full=False)

    assert score.steps == []
    (sentence,) = score.left_out
    assert "Real kernel" in sentence
    assert "LEFT OUT" in capsys.readouterr().out


def test_virtual_machine_that_ends_without_a_word_is_tried_without_kvm(
    monkeypatch, tmp_path
) -> None:
    """As qemu does under a /dev/kvm that opens, and refuses what the guest's processor is to have."""
    vm = load_program("tests/vm/run")
    monkeypatch.setattr(vm, "CACHE", tmp_path)
    silent = [sys.executable, "-c", "raise SystemExit(1)"]

    with pytest.raises(vm.NoSignOfLife):
        vm.boot(silent, "kvm", limit_seconds=60)

    assert vm.boot(silent, "tcg", limit_seconds=60) == 1


def test_status_of_the_guest_is_that_of_the_virtual_machine(monkeypatch, tmp_path, capsys) -> None:
    vm = load_program("tests/vm/run")
    monkeypatch.setattr(vm, "CACHE", tmp_path)
    speaks = [sys.executable, "-c", f"print('first'); print({vm.STATUS + '3'!r})"]

    assert vm.boot(speaks, "kvm", limit_seconds=60) == 3
    assert "first\n" in capsys.readouterr().out
