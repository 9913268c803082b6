"""A template that is aged or has grown is replaced while it serves."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest

from dayfly.executor import Call, Executor, Outcome, Source, load_value, wear
from dayfly.executor.wear import Wear
from tests import calls, helpers
from tests.helpers import alive, collect

eventually = partial(helpers.eventually, within=60)


@pytest.fixture(autouse=True)
def looks_are_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wear, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(wear, "LOADS_BEFORE_GROWTH", 0)


def templates_of(executor: Executor) -> set[int]:
    return set(executor.all_pids) - set(executor.child_pids)


def parent_of_a_child(executor: Executor) -> int:
    """Run a call; return the template that forked its child."""
    executor.submit(Call.of(os.getppid))
    (report,) = collect(executor, 1, within=60)
    assert report.outcome is Outcome.RETURNED
    return int(load_value(report))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (Source(max_age_seconds=0.5), " s old"),
        (
            Source(
                set_up="tests.calls.template_that_leaks_at_each_fork", max_growth_bytes=30_000_000
            ),
            "it has grown by ",
        ),
    ],
    ids=["age", "growth"],
)
def test_worn_template_is_replaced_while_it_serves(
    source: Source, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Executor(launcher="template", standby=0, source=source) as executor:
        first = parent_of_a_child(executor)

        eventually(lambda: parent_of_a_child(executor) != first)

        eventually(lambda: executor.poll(0.05) == [] and not alive(first))
        assert first not in templates_of(executor)
    assert f"The template {first} is replaced by a new one: it " in caplog.text
    assert words in caplog.text


def test_old_template_waits_for_its_children(tmp_path: Path) -> None:
    go = tmp_path / "go"
    source = Source(max_age_seconds=0.3, preload=("tests.calls",))
    with Executor(launcher="template", concurrency=2, standby=0, source=source) as executor:
        executor.submit(Call.of(calls.ends_after, str(go), "long"))
        eventually(lambda: executor.poll(0.05) == [] and executor.running == 1)
        (first,) = templates_of(executor)

        eventually(lambda: parent_of_a_child(executor) != first)
        assert alive(first)

        go.touch()
        (long,) = collect(executor, 1)
        assert load_value(long) == "long"
        eventually(lambda: executor.poll(0.05) == [] and not alive(first))


def test_template_that_nobody_uses_is_left_alone() -> None:
    source = Source(max_age_seconds=0.1, max_growth_bytes=1)
    with Executor(launcher="template", standby=1, source=source) as executor:
        parent_of_a_child(executor)
        settled = eventually(lambda: settled_template(executor))
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            executor.poll(0.1)

        assert templates_of(executor) == settled


def settled_template(executor: Executor) -> set[int]:
    """Return the one template, when its child stands by: it is not replaced for having forked that."""
    executor.poll(0.05)
    templates = templates_of(executor)
    is_settled = len(executor.child_pids) == 1 and not executor.expects_children
    return templates if is_settled and len(templates) == 1 else set()


def test_new_template_that_fails_is_not_tried_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(wear, "LOOK_SECONDS", 60.0)
    module = tmp_path / "loaded_for_wear.py"
    module.write_text("")
    source = Source(max_age_seconds=0.2, preload=(module.stem,))
    with Executor(launcher="template", standby=0, source=source) as executor:
        first = parent_of_a_child(executor)
        module.write_text("raise RuntimeError('broken meanwhile')")

        eventually(lambda: parent_of_a_child(executor) == first and "was not taken" in caplog.text)
        for _ in range(10):
            assert parent_of_a_child(executor) == first

    assert caplog.text.count("is replaced by a new one") == 1
    assert "broken meanwhile" in caplog.text


def test_pauses_after_failures_grow_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wear, "LOOK_SECONDS", 5.0)
    watched = Wear(Source(max_age_seconds=1.0))
    watched.begin(os.getpid(), load_seconds=0.1)
    now = time.monotonic() + 1.0
    pauses = []
    for _ in range(9):
        watched.note_use()
        assert watched.reason(os.getpid(), now)
        watched.note_failure(now)
        pauses.append(pause_of(watched, now))
        now += pauses[-1]

    assert pauses == [10, 20, 40, 80, 160, 320, 600, 600, 600]


def pause_of(watched: Wear, now: float) -> int:
    def is_due(seconds: int) -> bool:
        watched.note_use()
        return bool(watched.reason(os.getpid(), now + seconds))

    return next(filter(is_due, range(10_000)))


@pytest.mark.parametrize("limit", [{"max_age_seconds": 0}, {"max_growth_bytes": -1}])
def test_limits_that_are_none_are_refused(limit: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Source(**limit)  # type: ignore[arg-type]
