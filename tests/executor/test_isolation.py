"""A child inherits nothing of its parent's that could hurt either."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from logging.handlers import SysLogHandler
from pathlib import Path
from typing import NoReturn

import pytest

from dayfly.executor import AfterCalls, Call, Executor, Outcome, Terms, load_value, run_call, tidy
from dayfly.executor.fork import fork
from tests import calls
from tests.helpers import ROOT, alive, collect, environment, eventually, run_script


@pytest.fixture
def kept_signals() -> Iterator[None]:
    numbers = (signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# Descriptors


def test_no_descriptor_of_the_parent_reaches_a_child(tmp_path: Path) -> None:
    files = [os.open(tmp_path / str(number), os.O_CREAT | os.O_RDWR) for number in range(25)]
    pairs = [socket.socketpair() for _ in range(13)]
    sockets = {os.readlink(f"/proc/self/fd/{one.fileno()}") for pair in pairs for one in pair}
    os.set_inheritable(files[0], True)
    try:
        found = load_value(run_call(Call.of(calls.lists_descriptors)))
    finally:
        for file in files:
            os.close(file)
        for pair in pairs:
            for one in pair:
                one.close()

    targets = set(found.values())
    assert not targets & sockets
    assert not [target for target in targets if target.startswith(str(tmp_path))]
    own = [target for fd, target in found.items() if fd > 2 and target != os.devnull]
    assert [target.partition(":")[0] for target in own] == ["socket"]


def test_sibling_hears_end_of_file_although_another_was_forked_later() -> None:
    with Executor(concurrency=2, standby=2) as executor:
        executor.warm_up(freeze=False)
        pids = list(executor.child_pids)

        executor.dismiss_standby()
        executor.poll(0)

        eventually(lambda: not any(map(alive, pids)), within=5, what="both siblings to leave")
        eventually(lambda: executor.poll(0) or executor.is_empty)


def test_descriptors_of_a_child_are_not_inherited_by_what_it_executes() -> None:
    found = load_value(run_call(Call.of(_descriptors_after_exec)))

    assert set(found) <= {0, 1, 2}


def _descriptors_after_exec() -> list[int]:
    code = "import os; print(*[fd for fd in map(int, os.listdir('/proc/self/fd')) if os.path.exists(f'/proc/self/fd/{fd}')])"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, check=True, close_fds=False
    )
    return [int(word) for word in done.stdout.split()]


def test_nothing_is_written_into_files_that_reuse_the_numbers(tmp_path: Path) -> None:
    report = run_call(Call.of(calls.replaces_all_descriptors, str(tmp_path)))

    assert report.outcome is Outcome.EXITED
    assert "closed or replaced" in report.message
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(written) >= 4
    assert set(written.values()) == {b""}


WITHOUT_STREAMS = """
    import os, sys
    from dayfly.executor import Call, Source, run_call
    from tests import calls
    path, launcher = sys.argv[1:]
    results = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.dup2(results, 100)
    os.close(results)
    sys.stdin = sys.stdout = sys.stderr = None
    for stream in range(3):
        os.close(stream)  # one more each time
        report = run_call(Call.of(calls.prints, "heard"), launcher=launcher)
        os.write(100, f"{report.outcome} {report.output}\\n".encode())
"""


@pytest.mark.parametrize("launcher", ["fork", "copy", "template", "spawn"])
def test_call_works_in_a_host_without_standard_streams(launcher: str, tmp_path: Path) -> None:
    run_script(WITHOUT_STREAMS, str(tmp_path / "results"), launcher)

    assert (tmp_path / "results").read_text() == "returned b'heard'\n" * 3


LOADS_WITHOUT_STREAMS = """
    import os, sys
    from dayfly.executor import Call, Executor, Source, load_value
    from tests import calls
    from tests.helpers import collect
    (launcher,) = sys.argv[1:]
    os.close(0)
    source = Source(set_up="tests.calls.opens_a_log")
    with Executor(launcher=launcher, source=source, standby=0) as executor:
        executor.submit(Call.of(calls.writes_to_its_log, "heard"))
        collect(executor, 1)
"""


@pytest.mark.parametrize("launcher", ["template", "spawn"])
def test_what_is_opened_while_loading_gets_no_number_of_a_stream(
    launcher: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    run_script(LOADS_WITHOUT_STREAMS, launcher, DAYFLY_TEST_LOG=str(log))

    assert log.read_text() == "heard"


def test_standard_input_is_empty() -> None:
    place = load_value(run_call(Call.of(calls.about_place)))

    assert (place["stdin"], place["stdin_text"]) == (os.devnull, "")


# Signals


@pytest.mark.usefixtures("kept_signals")
def test_signal_handlers_mask_and_wakeup_descriptor_stay_with_the_parent() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, lambda number, frame: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    before = signal.set_wakeup_fd(ours.fileno())
    try:
        about = load_value(run_call(Call.of(calls.about_signals)))
        del about["group"]
    finally:
        signal.set_wakeup_fd(before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        ours.close()
        theirs.close()

    assert about == {
        "usr1": True,
        "term": True,
        "chld": True,
        "int": True,
        "wakeup_fd": -1,
        "blocked": 0,
    }


@pytest.mark.usefixtures("kept_signals")
def test_handler_of_a_signal_that_python_ignores_stays_with_the_parent_too() -> None:
    signal.signal(signal.SIGPIPE, lambda number, frame: None)

    handler = load_value(run_call(Call.of(calls.handler_of, signal.SIGPIPE)))

    assert handler == str(signal.SIG_IGN)


@pytest.mark.usefixtures("kept_signals")
def test_handler_of_the_parent_never_runs_in_a_child_under_a_storm(tmp_path: Path) -> None:
    ran_in: set[int] = set()
    log = os.open(tmp_path / "log", os.O_CREAT | os.O_APPEND | os.O_RDWR)

    def handler(number: int, frame: object) -> None:
        ran_in.add(os.getpid())
        with open(tmp_path / "log", "a") as file:
            file.write(f"{os.getpid()}\n")

    signal.signal(signal.SIGUSR1, handler)
    code = (
        "import os, signal, sys, time\n"
        "while os.getppid() == int(sys.argv[1]):\n"
        "    os.kill(int(sys.argv[1]), signal.SIGUSR1)\n"
        "    time.sleep(0.0005)\n"
    )
    storm = subprocess.Popen([sys.executable, "-S", "-c", code, str(os.getpid())])
    try:
        with Executor(concurrency=2, standby=2) as executor:
            for _ in range(300):
                executor.submit(Call.of(calls.returns))
            reports = collect(executor, 300)
    finally:
        storm.kill()
        storm.wait()
        os.close(log)

    pids = (tmp_path / "log").read_text().split()
    assert len(pids) > 100
    assert set(pids) == {str(os.getpid())}
    assert {report.outcome for report in reports} == {Outcome.RETURNED}
    assert len({report.child_pid for report in reports}) == 300


def test_child_has_a_process_group_of_its_own() -> None:
    place = load_value(run_call(Call.of(calls.about_place)))

    assert place["pid"] == place["group"] != os.getpgrp()


# What dies with whom


PARENT = """
    import sys, time
    from dayfly.executor import Call, Executor
    from tests import calls
    executor = Executor(standby=2)
    executor.submit(Call.of(calls.ignores_sigterm, sys.argv[1]))
    while True:
        executor.poll(0.05)
        print(*executor.child_pids, flush=True)
"""


def test_killed_parent_takes_its_children_with_it(tmp_path: Path) -> None:
    import textwrap

    mark = tmp_path / "running"
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(mark)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    try:
        eventually(mark.exists, what="the running call")
        lines = iter(parent.stdout.readline, "")
        pids = next(pids for line in lines if len(pids := [int(w) for w in line.split()]) == 3)
        assert all(map(alive, pids))
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()

    eventually(lambda: not any(map(alive, pids)), what="the end of running and standby children")


def test_death_signal_is_set() -> None:
    assert load_value(run_call(Call.of(calls.death_signal))) == signal.SIGKILL


def test_child_whose_parent_died_before_it_could_ask_leaves() -> None:
    pid = fork(lambda: _lives_with_another_parent(parent_pid=1))

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _lives_with_another_parent(parent_pid: int) -> NoReturn:
    tidy.die_with_parent(parent_pid)
    os._exit(99)


def test_child_learns_before_the_fork_who_its_parent_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = str(tmp_path / "parent")
    monkeypatch.setattr(os, "getppid", lambda: 1)  # as if the parent died during the fork
    monkeypatch.setattr(tidy, "die_with_parent", lambda pid: calls.appends(log, str(pid)))

    run_call(Call.of(calls.returns))

    assert Path(log).read_text() == f"{os.getpid()}\n"


# Randomness, title, scores


@pytest.mark.parametrize("launcher", ["fork", "copy"])
def test_log_file_of_the_parent_gets_what_a_child_logs(tmp_path: Path, launcher: str) -> None:
    """Its descriptor leads to /dev/null in a child: the record must not vanish in silence."""
    handler = logging.FileHandler(tmp_path / "log")
    logger = logging.getLogger("tests.isolation")
    logger.addHandler(handler)
    try:
        logger.error("one, the parent")
        with Executor(launcher=launcher) as executor:
            executor.submit(Call.of(calls.logs, logger.name, "two, the child"))
            (report,) = collect(executor, 1)
        logger.error("three, the parent")
    finally:
        logger.removeHandler(handler)
        handler.close()

    assert report.outcome is Outcome.RETURNED
    assert (tmp_path / "log").read_text().splitlines() == [
        "one, the parent",
        "two, the child",
        "three, the parent",
    ]


def test_log_server_of_the_parent_gets_what_a_child_logs() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        handler = SysLogHandler(server.getsockname())
        logger = logging.getLogger("tests.isolation")
        logger.addHandler(handler)
        try:
            report = run_call(Call.of(calls.logs, logger.name, "from the child"))
            datagram = server.recv(1000)
        finally:
            logger.removeHandler(handler)
            handler.close()

    assert (report.outcome, report.output) == (Outcome.RETURNED, b"")
    assert b"from the child" in datagram


def test_siblings_draw_different_random_numbers() -> None:
    with Executor(concurrency=2, standby=0) as executor:
        for _ in range(4):
            executor.submit(Call.of(calls.random_number))
        drawn = [load_value(report) for report in collect(executor, 4)]

    assert len(set(drawn)) == 4


def test_numpy_is_reseeded_when_it_is_loaded() -> None:
    if importlib.util.find_spec("numpy") is None:  # an import would leave a thread in this process
        pytest.skip("numpy is not installed")
    code = """
        import numpy.random
        from dayfly.executor import Call, Executor, load_value
        from tests import calls
        numpy.random.seed(1)
        with Executor(standby=2) as executor:
            for _ in range(3):
                executor.submit(Call.of(calls.numpy_random_number))
            found = []
            while len(found) < 3:
                found += [load_value(report) for report in executor.poll()]
        print(len({numpy.random.random(), *found}))
    """

    assert run_script(code, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1") == "4\n"


@pytest.mark.parametrize("launcher", ["template", "spawn"])
def test_title_has_its_place_where_the_first_variable_is_replaced(
    launcher: str, tmp_path: Path
) -> None:
    program = """
        import sys
        from dayfly.executor import Call, Executor, Terms, load_value
        from tests import calls

        terms = Terms(title="shop: child", workdir=sys.argv[1])
        with Executor(launcher=sys.argv[2], terms=terms) as executor:
            executor.submit(Call.of(calls.proc_cmdline))
            while not (reports := executor.poll()):
                pass
        print(load_value(reports[0]))
    """
    variables = {"PWD": "/", **{k: v for k, v in environment().items() if k != "PWD"}}
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), launcher],
        env=variables, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert found.stdout.startswith("shop: child tests.calls.proc_cmdline ")


def test_host_keeps_its_name() -> None:
    """With a space in it CPython takes the host for one with threads, and warns it of forks."""
    program = """
        from pathlib import Path
        before = Path("/proc/self/stat").read_text().split()[1], Path("/proc/self/cmdline").read_bytes()
        from dayfly.executor import Call, run_call
        from tests import calls
        run_call(Call.of(calls.returns))
        after = Path("/proc/self/stat").read_text().split()[1], Path("/proc/self/cmdline").read_bytes()
        print(before == after)
    """
    assert run_script(program).strip() == "True"


def test_process_title_names_the_call() -> None:
    call = Call.of(calls.proc_cmdline)

    report = run_call(call, terms=Terms(title="shop: child"))

    assert load_value(report) == f"shop: child tests.calls.proc_cmdline {call.call_id}"


def test_child_volunteers_for_the_out_of_memory_killer() -> None:
    call = Call.of(calls.proc_file, "oom_score_adj")

    assert load_value(run_call(call, terms=Terms(oom_score_adj=321))).strip() == "321"
    ours = Path("/proc/self/oom_score_adj").read_text()
    assert load_value(run_call(call, terms=Terms(oom_score_adj=None))) == ours


def test_heap_is_frozen_once_and_collection_is_on_in_the_child() -> None:
    code = """
        import gc
        gc.disable()
        from dayfly.executor import Call, Executor, load_value
        from tests import calls
        with Executor(standby=1) as executor:
            executor.warm_up()
            executor.submit(Call.of(calls.gc_state))
            while not (found := executor.poll()):
                pass
        enabled, frozen = load_value(found[0])
        print(enabled, frozen > 1000, gc.isenabled())
    """

    assert run_script(code) == "True True False\n"


def test_change_of_directory_stays_in_its_run(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with Executor(policy=AfterCalls(0), standby=0, terms=Terms(workdir=str(home))) as executor:
        executor.submit(Call.of(calls.changes_directory, str(tmp_path)))
        executor.submit(Call.of(os.getcwd))
        first, second = [load_value(report) for report in collect(executor, 2)]

    assert (first, second) == (str(tmp_path), str(home))


# No Django


def test_executor_lives_without_django() -> None:
    code = """
        import sys
        from dayfly.executor import Call, load_value, run_call
        from tests import calls
        report = run_call(Call.of(calls.modules_loaded, "django"))
        print(report.outcome, load_value(report), [n for n in sys.modules if "django" in n])
    """

    assert run_script(code) == "returned [] []\n"


def test_nothing_in_the_executor_imports_the_rest_of_dayfly() -> None:
    import ast

    for path in (ROOT / "src/dayfly/executor").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
                if names == ["dayfly"] and [alias.name for alias in node.names] == ["__version__"]:
                    continue  # the package's own module imports nothing, and is loaded anyway
            for name in names:
                assert not name.startswith("django"), path
                assert not name.startswith("dayfly") or name.startswith("dayfly.executor"), path
