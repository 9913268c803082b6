"""Memory figures: what they count, and what a report has of them."""

from __future__ import annotations

import mmap
import os
import resource
import signal
from pathlib import Path

import pytest

from dayfly.executor import AfterCalls, Call, Executor, Limits, Outcome, memory, run_call
from tests import calls
from tests.calls import MIB
from tests.helpers import collect, eventually, run_script


def test_quick_reading_agrees_with_the_kernel() -> None:
    reading = memory.quick()

    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert reading is not None
    assert abs(reading.rss_bytes - int(status["VmRSS"].split()[0]) * 1024) < 2 * MIB
    assert reading.anon_bytes is not None
    assert abs(reading.anon_bytes - int(status["RssAnon"].split()[0]) * 1024) < 2 * MIB
    assert (reading.uss_bytes, reading.pss_bytes) == (None, None)


def test_thorough_reading_has_private_and_proportional_figures() -> None:
    with mmap.mmap(-1, 10 * MIB, flags=mmap.MAP_PRIVATE) as block:
        before = memory.thorough()
        for start in range(0, len(block), mmap.PAGESIZE):
            block[start] = 1
        after = memory.thorough()

    assert before is not None
    assert after is not None
    for figure in ("rss_bytes", "anon_bytes", "uss_bytes", "pss_bytes"):
        growth = getattr(after, figure) - getattr(before, figure)
        assert 9 * MIB < growth < 12 * MIB, figure
    assert after.uss_bytes <= after.pss_bytes <= after.rss_bytes  # type: ignore[operator]


def test_process_that_is_gone_has_no_memory() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    assert memory.quick(pid) is None  # a zombie
    assert memory.thorough(pid) is None
    os.waitpid(pid, 0)
    assert memory.quick(pid) is None
    assert memory.thorough(pid) is None


def test_other_systems_read_through_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = memory.quick()
    monkeypatch.setattr(memory, "HAS_PROC", False)
    monkeypatch.setattr(memory, "HAS_ROLLUP", False)

    found = memory.thorough()

    assert expected is not None
    assert found is not None
    assert abs(found.rss_bytes - expected.rss_bytes) < 10 * MIB
    assert found.uss_bytes is None
    assert memory.quick(2**22 + 1) is None


def test_peak_is_counted_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)

    assert memory.peak_bytes(usage) == usage.ru_maxrss * 1024
    monkeypatch.setattr(memory, "HAS_PROC", False)
    assert memory.peak_bytes(usage) == usage.ru_maxrss


def test_report_has_memory_at_start_and_end() -> None:
    report = run_call(Call.of(calls.returns))

    for reading in (report.memory_start, report.memory_end):
        assert reading is not None
        assert MIB < reading.rss_bytes < 2_000 * MIB
        for figure in (reading.anon_bytes, reading.uss_bytes, reading.pss_bytes):
            assert figure is not None
            assert 0 < figure <= reading.rss_bytes
    assert report.parent_rss_before_fork_bytes is not None
    assert report.parent_anon_before_fork_bytes is not None
    assert report.parent_anon_before_fork_bytes < report.parent_rss_before_fork_bytes


def test_detail_can_be_left_out() -> None:
    report = run_call(Call(target="tests.calls.raw_upper", payload=b"x", memory_in_detail=False))

    assert report.memory_end is not None
    assert report.memory_end.anon_bytes is not None
    assert (report.memory_end.uss_bytes, report.memory_end.pss_bytes) == (None, None)


def test_peak_of_a_call_is_what_it_held_and_not_what_its_parent_holds() -> None:
    with mmap.mmap(-1, 100 * MIB, flags=mmap.MAP_PRIVATE) as ballast:
        for start in range(0, len(ballast), mmap.PAGESIZE):
            ballast[start] = 1
        report = run_call(Call.of(calls.holds, 50))

    assert report.memory_start is not None
    assert report.memory_end is not None
    assert report.peak_rss_bytes is not None
    growth = report.peak_rss_bytes - report.memory_start.rss_bytes
    assert 49 * MIB < growth < 56 * MIB
    assert report.memory_end.rss_bytes - report.memory_start.rss_bytes < 8 * MIB


def test_next_call_of_the_same_child_has_a_peak_of_its_own() -> None:
    with Executor(policy=AfterCalls(0), standby=0) as executor:
        for megabytes in (50, 5):
            executor.submit(Call.of(calls.holds, megabytes))
        first, second = collect(executor, 2)

    assert first.child_pid == second.child_pid
    assert first.peak_rss_bytes is not None
    assert second.peak_rss_bytes is not None
    assert first.peak_rss_bytes - second.peak_rss_bytes > 40 * MIB
    assert second.memory_start is not None
    assert 4 * MIB < second.peak_rss_bytes - second.memory_start.rss_bytes < 10 * MIB


def test_killed_child_has_what_wait4_knows_and_nothing_invented(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with Executor(standby=0) as executor:
        executor.submit(Call.of(calls.holds_and_waits, 50, str(mark)))
        executor.poll(0)
        eventually(mark.exists)
        os.kill(int(mark.read_text()), signal.SIGKILL)
        (report,) = collect(executor, 1)

    assert report.outcome is Outcome.KILLED
    assert report.peak_rss_bytes is not None
    assert report.peak_rss_bytes > 50 * MIB
    assert report.usage is not None
    assert report.usage.minor_faults > 50 * MIB // mmap.PAGESIZE // 2
    assert (report.memory_start, report.memory_end, report.new_modules) == (None, None, None)
    assert report.exit_code is None


def test_figures_of_a_childs_whole_life_are_not_told_of_its_last_call() -> None:
    with Executor(policy=AfterCalls(0), standby=0) as executor:
        executor.submit(Call.of(calls.holds, 50))
        executor.submit(Call.of(calls.kills_itself))
        _, killed = collect(executor, 2)

    assert (killed.outcome, killed.child_index) == (Outcome.KILLED, 2)
    assert (killed.peak_rss_bytes, killed.usage) == (None, None)


def test_last_look_at_a_running_child_survives_its_death(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    call = Call.of(calls.holds_and_waits, 50, str(mark), limits=Limits(timeout_seconds=1.3))
    with Executor(standby=0) as executor:
        executor.submit(call)
        (report,) = collect(executor, 1)

    assert report.outcome is Outcome.TIMED_OUT
    assert report.memory_end is not None
    assert report.memory_end.rss_bytes > 50 * MIB


def test_parent_stays_flat_over_two_thousand_calls() -> None:
    code = """
        import gc, os
        from dayfly.executor import Call, Executor
        from dayfly.executor import memory
        from tests import calls

        def go(executor, count):
            got = 0
            for start in range(0, count, 20):
                for _ in range(20):
                    executor.submit(Call.of(calls.returns))
                while executor.has_work:
                    got += len(executor.poll())
            assert got == count
            return memory.quick().anon_bytes

        with Executor(concurrency=2) as executor:
            executor.warm_up()
            before = go(executor, 200)
            fds = len(os.listdir("/proc/self/fd"))
            after = go(executor, 2000)
            while len(executor.child_pids) > 2:
                executor.poll(0.05)
        print(after - before)
    """

    growth = int(run_script(code, within=150))

    assert growth < 500_000
