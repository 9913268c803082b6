"""What a template loads: what it refuses to fork, what it does when loading fails, when it leaves and is renewed."""

from __future__ import annotations

import os
import shutil
import signal
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import dayfly
from dayfly.executor import Call, Executor, Outcome, Source, Terms, load_value
from tests import calls, helpers
from tests.helpers import alive

# An interpreter is started in each test, which on a busy machine can take long.
eventually = partial(helpers.eventually, within=60)
collect = partial(helpers.collect, within=60)

#: Writes a module that a template can import, and returns its name.
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str) -> str:
        path = tmp_path / f"loaded_{tmp_path.name.strip('_')}.py"
        path.write_text(textwrap.dedent(text))
        return path.stem

    return write


def template_of(executor: Executor) -> int:
    (pid,) = set(executor.all_pids) - set(executor.child_pids)
    return pid


def ready_templates(executor: Executor) -> set[int]:
    """Return those that have loaded what they shall: only then they take this title."""
    pids = set(executor.all_pids) - set(executor.child_pids)
    title = "dayfly: template"
    return {pid for pid in pids if Path(f"/proc/{pid}/cmdline").read_text().startswith(title)}


PYTHON_THREAD = """
    import threading, time
    threading.Thread(target=time.sleep, args=(60,), name="metrics", daemon=True).start()
"""
NATIVE_THREAD = """
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    thread = ctypes.c_ulong()
    # pause(2) in a thread that Python knows nothing of.
    libc.pthread_create(ctypes.byref(thread), None, libc.pause, None)
"""
LISTENING = """
    import socket
    server = socket.create_server(("127.0.0.1", 0))
"""
CONNECTED = """
    import socket
    ours, theirs = socket.socketpair()
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(PYTHON_THREAD, "left 1 thread running (metrics)", id="thread"),
        pytest.param(NATIVE_THREAD, "left 1 thread running (not Python's)", id="native thread"),
        pytest.param(LISTENING, "left 1 open socket", id="listening"),
        pytest.param(CONNECTED, "left 2 open sockets", id="connected"),
        pytest.param("1 / 0", "failed with ZeroDivisionError: division by zero", id="error"),
        pytest.param("raise SystemExit(3)", "failed with SystemExit: 3", id="exit"),
    ],
)
def test_unsafe_module_is_named_and_copies_serve_instead(
    write: Write, caplog: pytest.LogCaptureFixture, text: str, words: str
) -> None:
    name = write(text)

    with Executor(launcher="template", standby=0, source=Source(preload=(name,))) as executor:
        executor.submit(Call.of(calls.returns, 1))
        (report,) = collect(executor, 1)
        executor.submit(Call.of(calls.returns, 2))
        collect(executor, 1)

        assert report.outcome is Outcome.RETURNED

    said = [line for line in caplog.messages if line.startswith("No template")]
    assert len(said) == 1
    assert f"importing {name} {words}" in said[0]
    assert "a copy of this process instead" in said[0]


@pytest.fixture
def upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what a deployment does: from then on, fresh interpreters find another dayfly."""

    def upgrade() -> None:
        package = Path(dayfly.__file__).parent
        shutil.copytree(package, tmp_path / "dayfly", ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / "dayfly" / "__init__.py").write_text('__version__ = "9.9"\n')
        monkeypatch.syspath_prepend(str(tmp_path))

    return upgrade


CHANGED = f"dayfly was changed on disk, from {dayfly.__version__} to 9.9"


def test_template_of_another_dayfly_is_not_taken(
    upgrade: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    with Executor(launcher="template", standby=0) as executor:
        executor.submit(Call.of(os.getppid))
        (report,) = collect(executor, 1)
        upgrade()
        executor.renew()
        eventually(lambda: executor.poll(0.01) or "was not taken" in caplog.text)
        executor.submit(Call.of(os.getppid))
        (later,) = collect(executor, 1)

    assert load_value(later) == load_value(report)
    assert f"The new template was not taken: {CHANGED}" in caplog.text
    assert "restart it. The old one goes on." in caplog.text


def test_copies_serve_where_the_only_dayfly_on_disk_is_another(
    upgrade: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    upgrade()

    with Executor(launcher="template", standby=0) as executor:
        executor.submit(Call.of(calls.returns, 1))
        (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RETURNED
    assert f"No template: {CHANGED}" in caplog.text


def test_spawned_child_of_another_dayfly_says_so(upgrade: Callable[[], None]) -> None:
    upgrade()

    with Executor(launcher="spawn", standby=0) as executor:
        executor.submit(Call.of(calls.returns, 1))
        (report,) = collect(executor, 1)

    assert report.outcome is Outcome.EXITED
    assert f"This child does not start: {CHANGED}" in report.output.decode()


def test_numpy_is_forked_if_it_kept_its_threads_to_itself(write: Write) -> None:
    """OpenBLAS starts threads on import where it may use several."""
    name = write("import os; os.environ['OPENBLAS_NUM_THREADS'] = '1'; import numpy")

    with Executor(launcher="template", standby=0, source=Source(preload=(name,))) as executor:
        executor.submit(Call.of(calls.modules_loaded, "numpy"))
        (report,) = collect(executor, 1)

        assert "numpy" in load_value(report)


def test_native_threads_of_numpy_are_found(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    name = write("import os; os.environ['OPENBLAS_NUM_THREADS'] = '2'; import numpy")

    with Executor(launcher="template", standby=0, source=Source(preload=(name,))) as executor:
        executor.submit(Call.of(calls.returns, 1))
        collect(executor, 1)

    assert f"importing {name} left 1 thread running (not Python's)" in caplog.text


def test_thread_that_was_joined_is_no_reason_to_refuse(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    """Python says that a thread has ended a moment before the kernel does."""
    name = write(
        """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(str, range(8)))
        """
    )

    with Executor(launcher="template", standby=0, source=Source(preload=(name,))) as executor:
        executor.submit(Call.of(calls.returns, 1))
        collect(executor, 1)

    assert "No template" not in caplog.text


def test_call_waits_while_no_template_can_be_had_and_starts_are_spaced(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    """Where copies must not serve: each failure makes the pause before the next start longer."""
    name = write("raise ImportError('not today')")
    source = Source(preload=(name,), falls_back=False)

    with Executor(launcher="template", standby=0, source=source) as executor:
        executor.submit(Call.of(calls.returns, 1))
        eventually(lambda: executor.poll(0.05) or caplog.text.count("Next try in") >= 3)

        assert executor.waiting == 1
        pauses = [
            float(line.rpartition("Next try in ")[2].split()[0])
            for line in caplog.messages
            if "Next try in" in line
        ]
        assert pauses == sorted(set(pauses))

        write("# today")
        (report,) = collect(executor, 1)
        assert report.outcome is Outcome.RETURNED


@pytest.mark.parametrize("falls_back", [True, False])
def test_loading_that_hangs_is_ended(
    write: Write, caplog: pytest.LogCaptureFixture, falls_back: bool
) -> None:
    name = write("import time; time.sleep(600)")
    source = Source(preload=(name,), falls_back=falls_back, start_seconds=0.5)

    with Executor(launcher="template", standby=0, source=source) as executor:
        executor.submit(Call.of(calls.returns, 1))
        eventually(lambda: executor.poll(0.05) or "No template" in caplog.text)

        assert "is killed: it takes too long to load" in caplog.text
        if falls_back:
            executor.submit(Call.of(calls.returns, 2))
            collect(executor, 1)


def test_loading_that_kills_its_process_is_told(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    name = write("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")

    with Executor(launcher="template", standby=0, source=Source(preload=(name,))) as executor:
        executor.submit(Call.of(calls.returns, 1))
        (report,) = collect(executor, 1)

    assert report.outcome is Outcome.RETURNED
    assert "No template: it died, or was killed, while it was loaded." in caplog.text


def test_modules_that_are_found_may_fail_to_import(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    """One broken module of tasks must not keep the others from being preloaded."""
    name = write(
        """
        def names():
            return ["does_not_exist_at_all", "colorsys"]
        """
    )

    source = Source(find_modules=f"{name}.names")
    with Executor(launcher="template", standby=0, source=source) as executor:
        executor.submit(Call.of(calls.modules_loaded, "colorsys"))
        (report,) = collect(executor, 1)

    assert "colorsys" in load_value(report)
    assert "No template" not in caplog.text
    assert "importing does_not_exist_at_all failed with ModuleNotFoundError" in caplog.text


def test_idle_template_leaves_and_comes_back_when_there_is_work() -> None:
    source = Source(preload=("tests.calls",))
    with Executor(launcher="template", source=source, idle_seconds=0.3) as executor:
        executor.submit(Call.of(calls.returns, 1))
        collect(executor, 1)
        first = set(executor.all_pids)

        eventually(lambda: executor.poll(0.05) == [] and not executor.all_pids)
        assert not any(map(alive, first))

        executor.submit(Call.of(calls.returns, 2))
        (report,) = collect(executor, 1)
        assert load_value(report) == 2
        assert not first & set(executor.all_pids)


def test_renewed_template_takes_over_and_the_old_one_waits_for_its_child(
    write: Write, tmp_path: Path
) -> None:
    name = write("def value(payload): return b'old'")
    go = tmp_path / "go"
    source = Source(preload=("tests.calls", name))
    with Executor(launcher="template", concurrency=2, standby=1, source=source) as executor:
        executor.submit(Call.of(calls.ends_after, str(go), "long"))
        eventually(lambda: executor.poll(0.05) == [] and executor.running == 1)
        old = template_of(executor)

        write("def value(payload): return b'new release'")
        executor.renew()
        eventually(lambda: executor.poll(0.05) == [] and ready_templates(executor) > {old})
        executor.poll(0.05)
        executor.submit(Call(target=f"{name}.value", payload=b""))
        (new,) = collect(executor, 1)

        assert new.value == b"new release"
        assert alive(old)

        go.touch()
        (long,) = collect(executor, 1)
        assert load_value(long) == "long"
        eventually(lambda: executor.poll(0.05) == [] and not alive(old))


def test_child_that_the_old_template_still_forks_gets_no_call(write: Write) -> None:
    """It was asked for before the new one took over, and is born after."""
    name = write("def value(payload): return b'old'")
    with Executor(launcher="template", standby=0, source=Source(preload=(name,))) as executor:
        executor.submit(Call(target=f"{name}.value"))
        collect(executor, 1)
        eventually(lambda: executor.poll(0.05) == [] and executor.is_empty)
        old = template_of(executor)
        os.kill(old, signal.SIGSTOP)
        executor.submit(Call(target=f"{name}.value"))
        executor.poll(0)
        assert executor.expects_children

        write("def value(payload): return b'new release'")
        executor.renew()
        eventually(lambda: executor.poll(0.05) == [] and ready_templates(executor) > {old})
        executor.poll(0.05)
        os.kill(old, signal.SIGCONT)
        (report,) = collect(executor, 1)

        assert report.value == b"new release"
        eventually(lambda: executor.poll(0.05) == [] and not alive(old))


def test_renewal_that_fails_leaves_the_old_template(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    name = write("")
    with Executor(launcher="template", standby=0, source=Source(preload=(name,))) as executor:
        executor.submit(Call.of(calls.returns, 1))
        collect(executor, 1)
        old = template_of(executor)

        write("raise RuntimeError('half a release')  # and longer than the last")
        executor.renew()
        eventually(lambda: executor.poll(0.05) == [] and "was not taken" in caplog.text)

        executor.submit(Call.of(calls.returns, 2))
        (report,) = collect(executor, 1)
        assert load_value(report) == 2
        assert template_of(executor) == old
    assert f"importing {name} failed with RuntimeError: half a release" in caplog.text


def test_killed_while_loading_is_not_the_end(write: Write, tmp_path: Path) -> None:
    """Somebody kills the template before it can say that it is ready."""
    name = write(
        f"import time, os\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)"
    )
    with Executor(launcher="template", standby=0, source=Source(preload=(name,))) as executor:
        executor.submit(Call.of(calls.returns, 1))
        executor.poll(0)
        (pid,) = executor.all_pids
        os.kill(pid, signal.SIGKILL)

        (report,) = collect(executor, 1)

        assert load_value(report) == 1


def test_closing_while_a_template_is_loaded_is_no_failure(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    name = write("import time; time.sleep(600)")
    with Executor(launcher="template", standby=0, source=Source(preload=(name,))) as executor:
        executor.submit(Call.of(calls.returns, 1))
        executor.poll(0)
        assert executor.all_pids

    assert caplog.messages == []


def test_working_directory_that_is_gone_is_told_as_what_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "release"
    place.mkdir()
    terms = Terms(workdir=str(place), workdir_wait_seconds=0.1)
    with Executor(launcher="template", standby=0, terms=terms) as executor:
        place.rmdir()
        executor.submit(Call.of(calls.returns, 1))
        collect(executor, 1)

    assert f"No template: The working directory {place} cannot be entered" in caplog.text
