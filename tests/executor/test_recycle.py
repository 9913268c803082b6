"""When a child is replaced, and that each of its calls has a record of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dayfly.executor import (
    AfterAge,
    AfterCalls,
    AfterGrowth,
    AnyOf,
    Call,
    Executor,
    Outcome,
    RecyclePolicy,
    RunReport,
    Terms,
    load_value,
)
from tests import calls, limit_calls
from tests.helpers import collect

REPORT = RunReport(
    call_id="one", outcome=Outcome.RETURNED, message="", dispatched_ns=0, finished_ns=1
)


def children_that_served(policy: RecyclePolicy, *to_run: Call) -> list[int]:
    """Run calls one after the other; number the children that served them."""
    with Executor(policy=policy, standby=0) as executor:
        for call in to_run:
            executor.submit(call)
        reports = collect(executor, len(to_run))
    assert {report.outcome for report in reports} == {Outcome.RETURNED}
    pids = [report.child_pid for report in reports]
    known = list(dict.fromkeys(pids))
    return [known.index(pid) for pid in pids]


def keep(megabytes: int) -> Call:
    return Call.of(limit_calls.keeps, megabytes)


def test_child_that_grew_is_replaced() -> None:
    policy = AfterGrowth(50_000_000)

    assert children_that_served(policy, *(keep(30) for _ in range(5))) == [0, 0, 1, 1, 2]


def test_child_that_gave_memory_back_is_kept() -> None:
    policy = AfterGrowth(50_000_000)

    served = children_that_served(policy, *(Call.of(calls.holds, 100) for _ in range(3)))

    assert served == [0, 0, 0]


def test_old_child_is_replaced_after_its_call() -> None:
    policy = AfterAge(0.3)

    served = children_that_served(
        policy, Call.of(calls.burns, 0.35), Call.of(calls.pid), Call.of(calls.pid)
    )

    assert served[:2] == [0, 1]


def test_young_child_is_kept() -> None:
    assert children_that_served(AfterAge(3600), *(Call.of(calls.pid) for _ in range(5))) == [0] * 5


def test_any_of_replaces_as_soon_as_one_would() -> None:
    policy = AnyOf(AfterCalls(3), AfterGrowth(50_000_000), AfterAge(3600))

    served = children_that_served(
        policy, keep(60), keep(1), keep(1), keep(1), keep(1), keep(60), keep(1)
    )

    assert served == [0, 1, 1, 1, 2, 2, 3]


def test_any_of_asks_each_as_one_may_count() -> None:
    asked: list[str] = []

    class Counting:
        def calls_for_new_child(self) -> int | None:
            return None

        def keeps(self, report: RunReport) -> bool:
            asked.append(report.call_id)
            return False

    assert not AnyOf(Counting(), Counting()).keeps(REPORT)
    assert asked == ["one", "one"]


def test_policy_that_fails_costs_a_child_and_no_report(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        def calls_for_new_child(self) -> int | None:
            return None

        def keeps(self, report: RunReport) -> bool:
            raise RuntimeError("no idea")

    assert children_that_served(Failing(), Call.of(calls.pid), Call.of(calls.pid)) == [0, 1]
    assert caplog.messages == ["The recycle policy failed: the child is replaced."] * 2


def test_policy_that_fails_at_a_birth_costs_a_child_too(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        def calls_for_new_child(self) -> int | None:
            raise RuntimeError("no idea")

        def keeps(self, report: RunReport) -> bool:
            return True

    assert children_that_served(Failing(), Call.of(calls.pid), Call.of(calls.pid)) == [0, 1]
    assert caplog.messages == ["The recycle policy failed: the child serves one call."] * 2


def test_any_of_takes_the_smallest_count() -> None:
    assert AnyOf(AfterCalls(0), AfterCalls(7), AfterCalls(3)).calls_for_new_child() == 3
    assert AnyOf(AfterCalls(0), AfterAge(1)).calls_for_new_child() is None
    assert AnyOf().keeps(REPORT)


def test_what_is_not_known_replaces_nobody() -> None:
    assert AfterGrowth(1).keeps(REPORT)
    assert AfterAge(1).keeps(REPORT)
    assert not AfterGrowth(1).keeps(replace(REPORT, child_growth_bytes=1))
    assert not AfterAge(1).keeps(replace(REPORT, child_age_seconds=1.0))


@pytest.mark.parametrize(
    "make", [lambda: AfterGrowth(0), lambda: AfterAge(0), lambda: AfterAge(float("nan"))]
)
def test_impossible_policy_is_refused(make: object) -> None:
    with pytest.raises(ValueError, match="above 0"):
        make()  # type: ignore[operator]


def test_each_call_of_a_child_has_its_own_peak_and_record() -> None:
    with Executor(policy=AfterCalls(0), standby=0, terms=Terms(max_output_bytes=100)) as executor:
        for megabytes in (120, 10, 60):
            executor.submit(Call.of(limit_calls.holds_and_says_so, megabytes))
        executor.submit(Call.of(calls.burns, 0.3))
        executor.submit(Call.of(calls.returns))
        *held, burnt, idle = collect(executor, 5)

    assert len({report.child_pid for report in (*held, burnt, idle)}) == 1
    assert [report.child_index for report in (*held, burnt, idle)] == [1, 2, 3, 4, 5]
    for megabytes, report in zip((120, 10, 60), held, strict=True):
        assert load_value(report) == megabytes
        assert report.output == f"{megabytes} MiB".encode()
        assert report.memory_start is not None
        assert report.peak_rss_bytes is not None
        over_start = report.peak_rss_bytes - report.memory_start.rss_bytes
        assert megabytes - 4 < over_start / calls.MIB < megabytes + 6
    assert burnt.usage is not None
    assert idle.usage is not None
    assert burnt.usage.user_seconds + burnt.usage.system_seconds > 0.25
    assert idle.usage.user_seconds + idle.usage.system_seconds < 0.2
    ages = [report.child_age_seconds for report in (*held, burnt, idle)]
    assert ages == sorted(ages)  # type: ignore[type-var]
