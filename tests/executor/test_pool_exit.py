"""A pool at the end of its interpreter, in a script without a guard, and across a fork of its host."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.helpers import alive, children_of, environment, eventually, run_script


def start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_pending_calls_are_finished_when_the_interpreter_exits() -> None:
    code = """
        import os
        from dayfly.executor import IsolatedExecutor
        from tests.executor import pool_calls
        pool = IsolatedExecutor(max_workers=2)
        for number in range(10):
            future = pool.submit(pool_calls.add, number)
            # In one piece: print() of two threads may put two lines into one.
            future.add_done_callback(lambda done: os.write(1, b"%d\\n" % done.result()))
        os.write(1, b"end of script\\n")
    """

    printed = run_script(code).split("\n")

    assert sorted(printed[:-1]) == sorted(["end of script", *map(str, range(10))])


def test_exit_with_an_error_leaves_no_child(tmp_path: Path) -> None:
    code = f"""
        from dayfly.executor import IsolatedExecutor
        from tests import calls
        pool = IsolatedExecutor(max_workers=1, max_tasks_per_child=None)
        pool.submit(calls.waits_for, {str(tmp_path / "go")!r})
        print("submitted", flush=True)
        raise LookupError("host is done")
    """
    with start(code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "submitted\n"
        pids = eventually(lambda: children_of(process.pid))
        (tmp_path / "go").touch()
        _, errors = process.communicate(timeout=30)

    assert "host is done" in errors
    assert process.returncode == 1
    assert not any(map(alive, pids))


def test_ctrl_c_at_exit_leaves_no_child() -> None:
    code = """
        from dayfly.executor import IsolatedExecutor
        from tests.executor import pool_calls
        pool = IsolatedExecutor(max_workers=1)
        future = pool.submit(pool_calls.waits_forever)
        while not future.running():
            pass
        print("running", flush=True)
    """
    with start(code) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (template,) = eventually(lambda: children_of(process.pid))
        children = eventually(lambda: children_of(template))

        def ends() -> bool:
            process.send_signal(signal.SIGINT)
            return process.poll() is not None

        eventually(ends)
        process.communicate()

    eventually(lambda: not any(map(alive, {template, *children})))


def test_killed_host_leaves_no_child() -> None:
    code = """
        from dayfly.executor import IsolatedExecutor
        from tests.executor import pool_calls
        pool = IsolatedExecutor(max_workers=1)
        future = pool.submit(pool_calls.waits_forever)
        while not future.running():
            pass
        print("running", flush=True)
        future.result()
    """
    with start(code) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (template,) = eventually(lambda: children_of(process.pid))
        children = eventually(lambda: children_of(template))
        process.kill()
        process.communicate()

    eventually(lambda: not any(map(alive, {template, *children})))


def test_calls_after_the_exit_has_begun_are_refused() -> None:
    code = """
        import atexit
        from dayfly.executor import IsolatedExecutor
        from tests.executor import pool_calls
        pool = IsolatedExecutor(max_workers=1)
        pool.submit(pool_calls.add, 1).result()

        @atexit.register
        def late():
            for each in (pool, IsolatedExecutor(max_workers=1)):
                try:
                    each.submit(pool_calls.add, 1)
                except RuntimeError as error:
                    print(error)
    """

    assert run_script(code).splitlines() == [
        "This pool was shut down and takes no more calls.",
        "The interpreter is shutting down: the pool takes no more calls.",
    ]


def test_script_needs_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            from dayfly.executor import IsolatedExecutor, isolated, run

            def double(number):
                return 2 * number

            @isolated
            def triple(number):
                return 3 * number

            print("once")
            with IsolatedExecutor(max_workers=2) as pool:
                print(list(pool.map(double, range(3))), pool.submit(triple, 2).result())
            print(run(double, 4), triple(4))
            """
        )
    )

    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("once\n[0, 2, 4] 6\n8 12\n", "")


@pytest.mark.parametrize("is_running", [True, False])
def test_host_can_fork_while_it_has_a_pool(is_running: bool) -> None:
    """The copy has no thread: its pool refuses calls, and can be shut down and dropped."""
    code = f"""
        import os, sys, warnings
        from concurrent.futures import wait
        from dayfly.executor import IsolatedExecutor
        from tests.executor import pool_calls

        warnings.simplefilter("ignore", DeprecationWarning)  # of the fork: there is a thread
        pool = IsolatedExecutor(max_workers=2)
        futures = [pool.submit(pool_calls.add, 1)]
        wait(futures)
        if {is_running}:
            futures += [pool.submit(pool_calls.add, number) for number in range(50)]
        pid = os.fork()
        if pid == 0:
            try:
                pool.submit(pool_calls.add, 1)
            except RuntimeError as error:
                assert "forked" in str(error), error
            else:
                raise AssertionError("the copy takes calls")
            futures[-1].cancel()
            pool.shutdown()
            del pool
            with IsolatedExecutor(max_workers=1) as own:
                assert own.submit(pool_calls.add, 1).result(60) == 1
            sys.exit(42)  # the ordinary way, through the end of an interpreter
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), len([each.result(60) for each in futures]))
        print(pool.submit(pool_calls.add, 7).result(60))
    """

    assert run_script(code).split() == ["42", "51" if is_running else "1", "7"]


def test_copy_of_the_host_that_lives_on_does_not_hold_up_the_shutdown() -> None:
    """It has copies of all descriptors, so closing them here is not enough."""
    code = """
        import os, signal, warnings
        from dayfly.executor import IsolatedExecutor
        from tests.executor import pool_calls

        warnings.simplefilter("ignore", DeprecationWarning)  # of the fork: there is a thread
        pool = IsolatedExecutor(max_workers=2, max_tasks_per_child=None)
        pool.submit(pool_calls.add, 1).result()
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pool.shutdown()
        print("closed")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    """

    assert run_script(code) == "closed\n"


def test_faces_cost_the_loop_face_nothing() -> None:
    code = """
        import sys
        import dayfly.executor
        heavy = {"asyncio", "concurrent.futures", "multiprocessing", "cloudpickle"}
        print(sorted(heavy & set(sys.modules)), "dayfly.executor.pool" in sys.modules)
        from dayfly.executor import IsolatedExecutor, AsyncExecutor, isolated, run
        print(callable(isolated), callable(run), dayfly.executor.isolated is isolated)
    """

    assert run_script(code) == "[] False\nTrue True True\n"


def test_every_name_that_is_promised_is_there() -> None:
    import dayfly.executor

    for name in dayfly.executor.__all__:
        assert getattr(dayfly.executor, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        dayfly.executor.nonsense  # noqa: B018
