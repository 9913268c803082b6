"""The executor's benchmark: its arithmetic, and that each pool can be measured. No figure is tested."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
#: One for each way to build a pool.
SMOKED = [
    "fork",
    "copy-huge",
    "template-4k",
    "template-0",
    "template-1000",
    "spawn",
    "isolated",
    "ppe-spawn",
    "ppe-forkserver",
    "mp-pool",
    "pebble",
    "loky",
]


@pytest.fixture
def load(monkeypatch):
    """Import a module of the harness, which is not on the path of the tests."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def found_by(load, rates, **standby):
    """Return what a run would have found: *rates* by contender, in one round, for both parents."""
    rounds, cell = load("harness.executor.rounds"), load("harness.figures").Cell
    found = rounds.Found(rounds=1)
    for name, rate in rates.items():
        for parent in ("small", "large"):
            found.add_rate(cell(parent, 2, name), 1, rate, None)
            found.memory[cell(parent, 2, name)] = {
                "processes": 4,
                "tree_pss": 20_000_000,
                "parent_pss": 8_000_000,
                "held_uss": 3_000_000,
                "standby_uss": standby.get(name),
                "looks": {"at_start": 1_000_000, "collected": 2_000_000, "worked": 4_000_000},
            }
    return found


@pytest.mark.parametrize("name", SMOKED)
def test_pool_can_be_measured(load, tmp_path, name):
    rounds, contender = load("harness.executor.rounds"), load("bench_executor.contenders")
    needs = contender.CONTENDERS[name].needs
    if needs and importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed: it belongs to the dependency group bench")
    cell = load("harness.figures").Cell("small", 2, name)

    found = rounds.measure_one(cell, seconds=0.01, with_memory=True, workspace=tmp_path)

    assert found["rate"] > 0
    assert found["processes"] >= 3
    assert found["tree_pss"] > found["parent_pss"] > 0
    assert (found["standby_uss"] is not None) == (contender.CONTENDERS[name].standby > 0)
    assert found["looks"]["worked"] > found["looks"]["at_start"] > 0


def test_host_that_fails_is_said(load, tmp_path):
    rounds, process = load("harness.executor.rounds"), load("harness.process")
    cell = load("harness.figures").Cell("small", 2, "nobody")

    with pytest.raises(process.BenchError, match=r"the host of nobody .* KeyError"):
        rounds.measure_one(cell, seconds=0.01, with_memory=False, workspace=tmp_path)


def test_missing_package_is_left_out_and_said_once(load, monkeypatch):
    rounds, options = load("harness.executor.rounds"), load("harness.executor.options")
    monkeypatch.setattr(rounds.importlib.util, "find_spec", lambda name: None)
    found = rounds.Found()

    planned = rounds.cells(options.parse(["--only", "fork", "pebble"]), found)

    assert [(cell.place, cell.contender) for cell in planned] == [
        ("small", "fork"),
        ("large", "fork"),
    ]
    assert found.missing == ["pebble is not installed: pebble is left out."]


def test_goals_are_judged_by_ratios_and_the_largest_idle_child(load):
    found = found_by(
        load,
        {"template": 100.0, "ppe-spawn": 4.0, "ppe-forkserver": 25.0, "pebble": 100.0},
        template=1_500_000,
        fork=9_000_000,
    )

    verdicts = {goal.text: goal.verdict for goal in load("harness.executor.goals").judge(found)}

    assert [verdict for text, verdict in verdicts.items() if "small" in text] == [
        "met",
        "missed",
        "not measured",
        "missed",
    ]
    assert verdicts["template, against the fastest that imports the 300 MB in each child"] == (
        "missed"
    )
    assert next(v for text, v in verdicts.items() if "standby" in text) == "met"


def test_report_shows_all_that_was_measured(load):
    report, options = load("harness.executor.report"), load("harness.executor.options")
    found = found_by(load, {"template": 90.0, "template-4k": 45.0, "pebble": 30.0}, template=1)

    text = report.render(options.parse([]), found)

    assert re.search(r"\| / pebble, fork +\| +3.00 \| +3.00 \|", text)
    assert re.search(r"\| dayfly, template +\| +2.00 \| +2.00 \|", text)
    assert "not measured" in text


def test_only_a_whole_run_rewrites_the_document(load):
    options = load("harness.executor.options")

    assert options.parse([]).output == options.DOCUMENT
    assert options.parse(["--quick"]).output is None
    assert options.parse(["--only", "fork"]).output is None
    assert options.parse(["--parents", "small"]).output is None
    assert options.parse(["--quick", "--output", "x.md"]).output == Path("x.md")
    assert options.parse(["--no-output"]).output is None


def test_shipped_document_has_the_markers(load):
    report = load("harness.executor.report")

    text = load("harness.executor.options").DOCUMENT.read_text()

    assert report.BEGIN in text.split(load("harness.report").END)[0]
