"""
Cgroups, in a directory that looks like one: the steps, and what follows from what is read.

That the kernel then keeps to a limit is shown in tests/vm, by a kernel.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from dayfly.executor import Call, Cause, Executor, Limits, Outcome, Terms
from dayfly.executor import cgroup as cgroup_module
from dayfly.executor.cgroup import Cgroups, is_delegated
from dayfly.executor.kernelkills import KernelKills, own_cgroup
from tests import calls
from tests.helpers import collect, eventually


class FakeTree:
    """What /proc/self/cgroup and /sys/fs/cgroup look like to a service with a delegated cgroup."""

    def __init__(self, root: Path, *, controllers: str = "cpu memory pids") -> None:
        self.proc, self.cgroup_root = str(root / "proc"), str(root / "cgroup")
        self.ours = root / "cgroup" / "system.slice" / "dayfly.service"
        self.ours.mkdir(parents=True)
        (root / "proc" / "self").mkdir(parents=True)
        (root / "proc" / "self" / "cgroup").write_text("0::/system.slice/dayfly.service\n")
        (root / "proc" / "vmstat").write_text("nr_free_pages 5\noom_kill 3\nother 7\n")
        (self.ours / "cgroup.controllers").write_text(f"{controllers}\n")
        for name in ("cgroup.procs", "cgroup.subtree_control"):
            (self.ours / name).write_text("")

    def take(self) -> Cgroups | None:
        return Cgroups.take_delegated(
            proc=self.proc, cgroup_root=self.cgroup_root, may_take=lambda place: True
        )

    def of(self, pid: int) -> Path:
        return self.ours / f"dayfly-{pid}"

    def events(self, place: Path, kills: int, full: int = 4) -> None:
        (place / "memory.events").write_text(f"low 0\noom {full}\noom_kill {kills}\n")


@pytest.fixture
def tree(tmp_path: Path) -> FakeTree:
    return FakeTree(tmp_path)


def test_parent_moves_into_a_leaf_and_turns_the_memory_controller_on(tree: FakeTree) -> None:
    assert tree.take() is not None

    assert (tree.ours / "dayfly-parent" / "cgroup.procs").read_text() == str(os.getpid())
    assert (tree.ours / "cgroup.subtree_control").read_text() == "+memory"


def test_child_gets_a_cgroup_with_its_limit_above_what_it_holds(tree: FakeTree) -> None:
    cgroups = tree.take()
    assert cgroups is not None

    cgroups.confine(4711, 1_000)

    group = tree.of(4711)
    assert (group / "memory.max").read_text() == "1000"
    assert (group / "memory.oom.group").read_text() == "1"
    assert (group / "memory.swap.max").read_text() == "0"
    assert (group / "cgroup.procs").read_text() == "4711"

    (group / "memory.current").write_text("500\n")
    cgroups.confine(4711, 1_000)
    assert (group / "memory.max").read_text() == "1500"
    cgroups.confine(4711, None)
    assert (group / "memory.max").read_text() == "max"


def test_child_without_a_limit_gets_none(tree: FakeTree) -> None:
    cgroups = tree.take()
    assert cgroups is not None

    cgroups.confine(4711, None)

    assert not tree.of(4711).exists()
    assert not cgroups.was_full(4711)
    cgroups.kill(4711)
    cgroups.remove(4711)


def test_kill_that_the_kernel_counted_is_known(tree: FakeTree) -> None:
    cgroups = tree.take()
    assert cgroups is not None
    tree.of(4711).mkdir()
    tree.events(tree.of(4711), 1)

    cgroups.confine(4711, 1_000)
    assert not cgroups.was_full(4711)

    tree.events(tree.of(4711), 2, full=5)
    assert cgroups.was_full(4711)
    cgroups.kill(4711)
    assert (tree.of(4711) / "cgroup.kill").read_text() == "1"


def test_nothing_changes_where_other_processes_live_in_the_cgroup(
    tree: FakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = cgroup_module._write

    def refusing(path: Path, text: str) -> None:
        if path.name == "cgroup.subtree_control":
            raise OSError(16, "Device or resource busy")
        write(path, text)

    monkeypatch.setattr(cgroup_module, "_write", refusing)
    monkeypatch.setattr(Path, "rmdir", lambda path: None)  # a real one is empty of files

    assert tree.take() is None
    assert (tree.ours / "cgroup.procs").read_text() == str(os.getpid())


def test_without_the_memory_controller_there_is_nothing_to_take(tmp_path: Path) -> None:
    tree = FakeTree(tmp_path, controllers="cpu pids")

    assert tree.take() is None
    assert not (tree.ours / "dayfly-parent").exists()


def test_without_version_2_there_is_nothing_to_take(tmp_path: Path) -> None:
    tree = FakeTree(tmp_path)
    (tmp_path / "proc" / "self" / "cgroup").write_text("4:memory:/some/where\n")

    assert tree.take() is None
    assert own_cgroup(proc=str(tmp_path / "nowhere")) is None


def test_leaf_of_an_earlier_life_is_not_divided_again(tree: FakeTree, tmp_path: Path) -> None:
    (tree.ours / "dayfly-parent").mkdir()
    (tmp_path / "proc" / "self" / "cgroup").write_text(
        "0::/system.slice/dayfly.service/dayfly-parent\n"
    )

    assert own_cgroup(proc=tree.proc, cgroup_root=tree.cgroup_root) == tree.ours


@pytest.mark.skipif(os.geteuid() != 0, reason="root may write everywhere; others may not")
def test_for_root_the_right_to_write_does_not_mean_delegation(tree: FakeTree) -> None:
    assert not is_delegated(tree.ours)
    assert not is_delegated(tree.ours / "nowhere")


def test_call_that_the_kernel_killed_in_its_cgroup_is_over_memory(
    tree: FakeTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroups = tree.take()
    monkeypatch.setattr(Cgroups, "take_delegated", lambda: cgroups)
    mark = tmp_path / "mark"
    terms = Terms(use_cgroup=True)
    limits = Limits(memory_bytes=50_000_000)
    with Executor(standby=0, terms=terms) as executor:
        executor.submit(Call.of(calls.waits, str(mark), limits=limits))
        executor.poll(0)
        eventually(mark.exists)
        (pid,) = executor.child_pids
        tree.events(tree.of(pid), 1, full=1)
        os.kill(pid, 9)
        (report,) = collect(executor, 1)

    assert (report.outcome, report.cause) == (Outcome.OVER_MEMORY, Cause.CGROUP_LIMIT)
    assert "memory limit of 50.0 MB" in report.message
    assert "the kernel killed it there" in report.message


def test_kill_for_memory_that_others_ran_out_of_is_not_at_the_limit(tree: FakeTree) -> None:
    cgroups = tree.take()
    assert cgroups is not None
    cgroups.confine(4711, 1_000)

    tree.events(tree.of(4711), 1, full=0)

    assert cgroups.was_killed(4711)
    assert not cgroups.was_full(4711)


def test_process_that_is_started_during_the_move_is_moved(
    tree: FakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template forks children while the first call with a limit begins."""
    listings = iter([[10], [10, 11], [10, 11]])
    monkeypatch.setattr(cgroup_module.kin, "descendants", lambda pid: next(listings))
    written: list[str] = []
    monkeypatch.setattr(cgroup_module, "_write", lambda path, text: written.append(text))

    assert tree.take() is not None

    assert {"10", "11", str(os.getpid())} <= set(written)


def test_cgroup_in_which_something_lives_is_removed_later(
    tree: FakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroups = tree.take()
    assert cgroups is not None
    cgroups.confine(4711, 1_000)
    for file in tree.of(4711).iterdir():
        file.unlink()
    rmdir = Path.rmdir

    def busy(path: Path) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "rmdir", busy)
    cgroups.remove(4711)
    assert tree.of(4711).exists()

    monkeypatch.setattr(Path, "rmdir", rmdir)
    cgroups.confine(4712, None)
    assert not tree.of(4711).exists()


# What the kernel counts


def test_kills_in_our_leaf_are_those_that_count(tree: FakeTree, tmp_path: Path) -> None:
    """Those of children at their own limits are counted beside it, and above."""
    (tmp_path / "proc" / "self" / "cgroup").write_text(
        "0::/system.slice/dayfly.service/dayfly-parent\n"
    )
    (tree.ours / "dayfly-parent").mkdir()
    tree.events(tree.ours, 7)
    tree.events(tree.ours / "dayfly-parent", 2)

    kills = KernelKills(proc=tree.proc, cgroup_root=tree.cgroup_root)
    tree.events(tree.ours, 8)
    assert not kills.claim_one()

    tree.events(tree.ours / "dayfly-parent", 3)
    assert kills.claim_one()


def test_kills_are_those_of_our_cgroup_where_it_counts_them(tree: FakeTree) -> None:
    tree.events(tree.ours, 7)

    kills = KernelKills(proc=tree.proc, cgroup_root=tree.cgroup_root)
    assert kills.are_ours
    assert not kills.claim_one()

    tree.events(tree.ours, 8)
    assert kills.claim_one()
    assert not kills.claim_one()


def test_else_those_of_the_machine_are_counted(tree: FakeTree, tmp_path: Path) -> None:
    kills = KernelKills(proc=tree.proc, cgroup_root=tree.cgroup_root)
    assert not kills.are_ours

    (tmp_path / "proc" / "vmstat").write_text("oom_kill 5\n")

    assert [kills.claim_one() for _ in range(3)] == [True, True, False]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time, which stands still until a test moves it."""
    clock = SimpleNamespace(now=1_000.0)
    monkeypatch.setattr("dayfly.executor.kernelkills.time.monotonic", lambda: clock.now)
    return clock


def test_kill_of_an_hour_ago_is_no_evidence(
    tree: FakeTree, tmp_path: Path, clock: SimpleNamespace
) -> None:
    kills = KernelKills(proc=tree.proc, cgroup_root=tree.cgroup_root)
    (tmp_path / "proc" / "vmstat").write_text("oom_kill 5\n")

    clock.now += 3_600
    kills.look()

    assert not kills.claim_one()


def test_kill_that_was_counted_just_before_the_death_was_seen_is_evidence(
    tree: FakeTree, tmp_path: Path, clock: SimpleNamespace
) -> None:
    kills = KernelKills(proc=tree.proc, cgroup_root=tree.cgroup_root)
    (tmp_path / "proc" / "vmstat").write_text("oom_kill 4\n")

    clock.now += 1.5
    kills.look()

    assert kills.claim_one()


@pytest.mark.parametrize(("seconds", "is_evidence"), [(8, True), (12, False)])
def test_child_that_takes_seconds_to_die_was_killed_by_the_kernel_all_the_same(
    tree: FakeTree, clock: SimpleNamespace, seconds: int, is_evidence: bool
) -> None:
    """The kernel counts when it kills; what held much memory is gone much later."""
    tree.events(tree.ours, 7)
    kills = KernelKills(proc=tree.proc, cgroup_root=tree.cgroup_root)
    for _ in range(20):
        clock.now += 1.0
        kills.look()

    tree.events(tree.ours, 8)
    for _ in range(seconds):
        clock.now += 1.0
        kills.look()

    assert kills.claim_one() == is_evidence
    assert not kills.claim_one()


def test_kill_of_a_stranger_seconds_ago_is_no_evidence(
    tree: FakeTree, tmp_path: Path, clock: SimpleNamespace
) -> None:
    kills = KernelKills(proc=tree.proc, cgroup_root=tree.cgroup_root)
    (tmp_path / "proc" / "vmstat").write_text("oom_kill 5\n")

    for _ in range(4):
        clock.now += 1.0
        kills.look()

    assert not kills.claim_one()


def test_system_that_counts_nothing_is_lived_with(tmp_path: Path) -> None:
    kills = KernelKills(proc=str(tmp_path), cgroup_root=str(tmp_path))

    assert not kills.claim_one()
