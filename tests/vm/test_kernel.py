"""
Cgroups and the kernel's kills, by a kernel: in the virtual machine of run.py only.

    python3 tests/vm/run.py
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vm.services import CGROUPS, NOBODY, Service

pytestmark = pytest.mark.skipif(
    os.environ.get("DAYFLY_TEST_KERNEL") != "1",
    reason="needs a kernel of its own: python3 tests/vm/run.py",
)

MB = 1_000_000
LIMIT = 60 * MB
#: With "spawn", of which each child takes seconds where the guest is emulated, only what follows.
LAUNCHERS = ("fork", "copy", "template")
HOLDS = "tests.limit_calls.holds_private"
TAKES: dict[str, tuple[str, list[Any]]] = {
    "at once": (HOLDS, [4 * LIMIT // (1 << 20)]),
    "slowly": ("tests.limit_calls.leaks_slowly", []),
    "shared": ("tests.limit_calls.holds_shared", [200]),
    "in a family": ("tests.limit_calls.holds_in_a_family", [200, 8]),
}
if importlib.util.find_spec("numpy") is not None:
    TAKES["numpy"] = ("tests.limit_calls.holds_with_numpy", [200])
NEXT = ("tests.calls.returns", [], None)
AT_ITS_LIMIT = ("over_memory", "cgroup_limit")
BY_THE_KERNEL = ("killed", "out_of_memory")
BY_SOMEONE = ("killed", "outside")


def ending(report: dict[str, Any]) -> tuple[str, str | None]:
    return report["outcome"], report["cause"]


# At the limit of a child's own cgroup


@pytest.fixture(scope="module", params=LAUNCHERS)
def served(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One host for each launcher takes memory in every way, and runs another call after each."""
    service = Service()
    orders = [order for take in TAKES.values() for order in ((*take, LIMIT), NEXT)]
    try:
        found = service.run("serve", orders=orders, launcher=request.param)
    finally:
        service.close()  # now, and not after the last test that asks: others make one like it
    reports = found["reports"]
    return {**found, "over": dict(zip(TAKES, reports[::2], strict=True)), "next": reports[1::2]}


@pytest.mark.parametrize("take", TAKES)
def test_child_that_passes_its_limit_is_killed_by_the_kernel(
    served: dict[str, Any], take: str
) -> None:
    report = served["over"][take]

    assert ending(report) == AT_ITS_LIMIT, report["message"]
    assert report["signal"] == 9
    assert "memory limit of 60.0 MB" in report["message"]
    assert "the kernel killed it there" in report["message"]


def test_parent_goes_on_after_each(served: dict[str, Any]) -> None:
    assert [report["outcome"] for report in served["next"]] == ["returned"] * len(TAKES)


def test_parent_is_in_its_leaf_and_no_other_cgroup_is_left(served: dict[str, Any]) -> None:
    assert served["after close"] == {"own": "dayfly-parent", "below": ["dayfly-parent"]}


@pytest.mark.parametrize("launcher", [*LAUNCHERS, "spawn"])
def test_daemon_counts_and_dies_with_its_child(
    service: Callable[..., Service], launcher: str, tmp_path: Path
) -> None:
    found = service().run(
        "leave_a_daemon", launcher=launcher, memory_bytes=LIMIT, directory=str(tmp_path)
    )

    assert ending(found["reports"][0]) == AT_ITS_LIMIT
    assert found["after close"]["below"] == ["dayfly-parent"]


def test_daemon_counts_where_the_machine_could_swap(
    swap: None, service: Callable[..., Service], tmp_path: Path
) -> None:
    """Else it would hold what it likes, a limit's worth of it in memory."""
    found = service().run(
        "leave_a_daemon", launcher="fork", memory_bytes=LIMIT, directory=str(tmp_path)
    )

    assert ending(found["reports"][0]) == AT_ITS_LIMIT


def test_what_earlier_calls_left_is_not_held_against_the_next(
    service: Callable[..., Service],
) -> None:
    keeps = ("tests.limit_calls.keeps", [30], LIMIT)
    orders = [*[keeps] * 4, ("tests.limit_calls.keeps", [150], LIMIT)]

    found = service().run("serve", orders=orders, reuse=True)

    # The last is ended by the kernel or by the parent, whoever sees it first: what earlier calls left
    # in the cgroup makes up for what the kernel counts besides.
    assert [report["outcome"] for report in found["reports"]] == ["returned"] * 4 + ["over_memory"]
    assert len({report["pid"] for report in found["reports"]}) == 1


def test_call_without_a_limit_has_none_in_a_child_that_had_one(
    service: Callable[..., Service],
) -> None:
    orders = [(*NEXT[:2], LIMIT), ("tests.calls.holds", [200], None)]

    found = service().run("serve", orders=orders, reuse=True)

    assert [report["outcome"] for report in found["reports"]] == ["returned"] * 2
    assert len({report["pid"] for report in found["reports"]}) == 1


def test_two_at_once_have_each_their_own_limit(service: Callable[..., Service]) -> None:
    orders = [(HOLDS, [150], LIMIT), ("tests.calls.holds", [150], 5 * LIMIT)]

    found = service().run("serve", orders=orders, concurrency=2)

    assert [ending(report) for report in found["reports"]] == [AT_ITS_LIMIT, ("returned", None)]


def test_cgroups_of_families_are_removed_while_the_executor_works(
    service: Callable[..., Service],
) -> None:
    """Relatives that die with the child may take longer than it."""
    orders = [("tests.limit_calls.holds_in_a_family", [200, 30], LIMIT)] * 5 + [NEXT]

    found = service().run("serve", orders=orders)

    assert {ending(report) for report in found["reports"][:-1]} == {AT_ITS_LIMIT}
    assert found["after close"]["below"] == ["dayfly-parent"]


# Whose cgroup it is


@pytest.mark.parametrize("launcher", ["fork", "template", "spawn"])
def test_user_without_rights_but_those_to_its_cgroup_is_enough(
    service: Callable[..., Service], launcher: str
) -> None:
    """How a unit with User= and Delegate=yes looks to its service."""
    orders = [(HOLDS, [200], LIMIT), NEXT]

    found = service(owner=NOBODY, mark=None).run("serve", orders=orders, launcher=launcher)

    assert [ending(report) for report in found["reports"]] == [AT_ITS_LIMIT, ("returned", None)]
    assert found["after close"] == {"own": "dayfly-parent", "below": ["dayfly-parent"]}


def test_other_mark_of_delegation_is_known(service: Callable[..., Service]) -> None:
    found = service(mark="trusted.delegate").run("serve", orders=[(HOLDS, [200], LIMIT)])

    assert ending(found["reports"][0]) == AT_ITS_LIMIT


def test_cgroup_that_nobody_delegated_is_left_alone(service: Callable[..., Service]) -> None:
    found = service(mark=None).run("serve", orders=[(HOLDS, [200], LIMIT)])

    assert ending(found["reports"][0]) == ("over_memory", "memory_limit")
    assert found["after close"] == {"own": "dayfly.service", "below": []}


def test_cgroup_with_others_in_it_is_left_as_it_was(service: Callable[..., Service]) -> None:
    found = service().run("share_the_cgroup")

    assert ending(found["reports"][0]) == ("over_memory", "memory_limit")
    assert found["after close"] == {"own": "dayfly.service", "below": []}
    assert found["controllers"] == ""
    assert any("cannot be divided" in line for line in found["heard"])


# Kills of the kernel that no limit of ours is behind


@pytest.mark.parametrize("launcher", ["fork", "template", "spawn"])
@pytest.mark.parametrize("limit", [None, 1_000 * MB])
def test_surrounding_cgroup_that_runs_out_is_named(
    service: Callable[..., Service], launcher: str, limit: int | None
) -> None:
    """A container's limit, say. A child that has a limit, and did not reach it, is not over it."""
    orders = [("tests.limit_calls.takes_for_ever", [], limit), NEXT]

    found = service(surrounding_bytes=300 * MB).run("serve", orders=orders, launcher=launcher)

    first, second = found["reports"]
    assert ending(first) == BY_THE_KERNEL, first["message"]
    assert "The kernel did it: the memory of" in first["message"]
    assert second["outcome"] == "returned"


def test_container_without_delegation_that_runs_out_is_named(
    service: Callable[..., Service],
) -> None:
    orders = [("tests.limit_calls.takes_for_ever", [], None), NEXT]

    found = service(surrounding_bytes=300 * MB, mark=None).run("serve", orders=orders)

    assert ending(found["reports"][0]) == BY_THE_KERNEL
    assert found["reports"][1]["outcome"] == "returned"


@pytest.mark.parametrize("limit", [None, 8_000 * MB])
def test_machine_that_runs_out_is_named(service: Callable[..., Service], limit: int | None) -> None:
    orders = [("tests.limit_calls.takes_for_ever", [], limit), NEXT]

    found = service().run("serve", orders=orders)

    first, second = found["reports"]
    assert ending(first) == BY_THE_KERNEL, first["message"]
    assert "The kernel did it: the memory of" in first["message"]
    assert "machine" in first["message"]
    assert second["outcome"] == "returned"


@pytest.mark.parametrize("launcher", ["fork", "template"])
@pytest.mark.parametrize("limit", [None, LIMIT])
def test_kill_of_someone_is_not_put_down_to_the_kernel(
    service: Callable[..., Service], launcher: str, limit: int | None, tmp_path: Path
) -> None:
    found = service(surrounding_bytes=300 * MB).run(
        "kill_one", launcher=launcher, memory_bytes=limit, directory=str(tmp_path)
    )

    assert ending(found["killed"]) == BY_SOMEONE
    assert "the kernel counted no kill for lack of memory" in found["killed"]["message"]


@pytest.mark.parametrize("limit", [None, 1_000 * MB])
def test_kill_of_someone_just_after_another_reached_its_limit_is_told_apart(
    service: Callable[..., Service], limit: int | None, tmp_path: Path
) -> None:
    found = service().run(
        "kill_one", launcher="fork", memory_bytes=limit, directory=str(tmp_path), beside=LIMIT
    )

    assert [ending(report) for report in found["others"]] == [AT_ITS_LIMIT]
    assert ending(found["killed"]) == BY_SOMEONE, found["killed"]["message"]


def test_cgroup_of_the_guest_is_as_systems_have_it() -> None:
    assert "memory" in (CGROUPS / "cgroup.controllers").read_text().split()
    assert not (CGROUPS / "memory.max").exists()  # the real root, not a container's
