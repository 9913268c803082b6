"""The arithmetic of the benchmark. What it measures is not tested: figures belong to a machine."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Import a module of the harness, which is not on the path of the tests."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def write_stamps(stamps, moments):
    """Write stamps as the jobs do, numbered in the order of *moments*."""
    pack = stamps.STAMP.pack
    return b"".join(pack(number, moment) for number, moment in enumerate(moments))


def test_rate_leaves_out_the_warm_up(load, tmp_path):
    stamps = load("harness.stamps")
    file = stamps.Stamps(tmp_path / "stamps")
    slow_start = [0, 10_000_000_000]
    steady = [20_000_000_000 + n * 10_000_000 for n in range(8)]

    file.path.write_bytes(write_stamps(stamps, [*slow_start, *steady]))

    assert file.rate(10) == pytest.approx(100)


def test_rate_refuses_a_round_that_lost_a_job(load, tmp_path):
    stamps = load("harness.stamps")
    file = stamps.Stamps(tmp_path / "stamps")
    file.path.write_bytes(write_stamps(stamps, [1, 2, 3]))

    with pytest.raises(stamps.BenchError, match="3 of 4 jobs ran"):
        file.rate(4)


def test_rate_refuses_a_job_that_ran_twice(load, tmp_path):
    stamps = load("harness.stamps")
    file = stamps.Stamps(tmp_path / "stamps")
    file.path.write_bytes(write_stamps(stamps, [1, 2]) + write_stamps(stamps, [3]))

    with pytest.raises(stamps.BenchError, match="job 0 ran twice"):
        file.rate(3)


def test_ratio_pairs_rounds_and_skips_failed_ones(load):
    figures = load("harness.figures")
    ours, theirs = figures.Cell("sqlite", 1, "a"), figures.Cell("sqlite", 1, "b")
    found = figures.Figures()
    for round_number, rate in {1: 100.0, 2: 50.0, 3: 80.0}.items():
        found.add_rate(ours, round_number, rate, None)
    for round_number, rate in {1: 50.0, 2: 25.0}.items():
        found.add_rate(theirs, round_number, rate, None)

    assert found.ratio(ours, theirs).values == (2.0, 2.0)
    assert found.ratio(ours, figures.Cell("sqlite", 2, "b")) is None


def test_cost_of_a_job_leaves_out_the_start(load):
    cost = load("harness.figures").Cost

    assert cost(3.0, 1100).per_job(cost(1.0, 100), 100) == cost(0.02, 10.0)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.95, 95), (1, 100)])
def test_quantile_is_the_nearest_rank(load, share, value):
    spread = load("harness.figures").Spread(tuple(range(100, 0, -1)))

    assert spread.quantile(share) == value


@pytest.mark.parametrize(("rate", "verdict"), [(70.0, "met"), (69.0, "missed")])
def test_goal_is_judged_against_the_ceiling(load, rate, verdict):
    figures, goals = load("harness.figures"), load("harness.goals")
    found = figures.Figures()
    found.add_rate(figures.Cell("postgresql", 2, "dayfly-1"), 1, rate, None)
    found.add_rate(figures.Cell("postgresql", 2, "bare-fork"), 1, 100.0, None)

    verdicts = [goal.verdict for goal in goals.judge(found)]

    assert verdicts == [verdict, *["not measured"] * 11]


def test_only_a_whole_run_rewrites_the_document(load):
    options = load("harness.options")

    assert options.parse([]).output == options.DOCUMENT
    assert options.parse(["--quick"]).output is None
    assert options.parse(["--only", "rq"]).output is None
    assert options.parse(["--quick", "--output", "x.md"]).output == Path("x.md")
    assert options.parse(["--no-output"]).output is None


def test_prose_around_the_figures_is_kept(load, tmp_path):
    report = load("harness.report")
    document = tmp_path / "benchmarks.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")

    report.write(document, "new")
    report.write(document, "newer")

    text = document.read_text()
    assert text == f"before\n{report.BEGIN}\n\nnewer\n\n{report.END}\nafter\n"


def test_document_without_markers_is_refused(load, tmp_path):
    report = load("harness.report")
    document = tmp_path / "benchmarks.md"
    document.write_text("prose only\n")

    with pytest.raises(ValueError, match="lost its markers"):
        report.write(document, "new")
    assert document.read_text() == "prose only\n"


def test_shipped_document_has_the_markers(load):
    report = load("harness.report")

    text = load("harness.options").DOCUMENT.read_text()

    assert report.BEGIN in text.split(report.END)[0]
