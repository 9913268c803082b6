"""
The example project, run as its `run.py` runs it, in the environment of the tests.

It needs the dependency group "example" (`python3 tests/run.py --group example`). The gate
sets DAYFLY_TEST_EXAMPLE=required, so that there a missing library is a failure.
"""

from __future__ import annotations

import email
import email.policy
import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parent.parent / "example_project"
LIBRARIES = ("pandas", "PIL", "reportlab")
MEGABYTE = 1024 * 1024
ORDERS = range(1001, 1007)

if os.environ.get("DAYFLY_TEST_EXAMPLE") != "required":
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(
            f"the example needs {', '.join(missing)}: run tests/run.py --group example",
            allow_module_level=True,
        )
if not os.environ.get("DAYFLY_TEST_DATABASE_URL", "sqlite://").startswith("sqlite:"):
    pytest.skip(
        "the example has its own SQLite database: it is tested with the suite on SQLite",
        allow_module_level=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What one run of the demo left behind."""

    printed: str
    warned: str
    var: Path
    runs: list[sqlite3.Row]

    def of(self, name: str) -> list[sqlite3.Row]:
        return [run for run in self.runs if run["task_path"] == f"shop.tasks.{name}"]

    def value_of(self, name: str) -> object:
        (run,) = self.of(name)
        return json.loads(run["return_value"])


def manage(*arguments: str, var: Path) -> subprocess.CompletedProcess[str]:
    """Run the example's manage.py; what it writes goes to *var*."""
    own = {"DJANGO_SETTINGS_MODULE", "SHOP_EXCHANGE_RATES_URL"}
    variables = {name: value for name, value in os.environ.items() if name not in own}
    variables["SHOP_VAR_DIR"] = str(var)
    variables["PYTHONPATH"] = str(PROJECT.parent / "src")
    variables["PYTHONWARNINGS"] = "always"
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )


def load_run_py() -> Any:
    """Import the script that a person starts."""
    spec = importlib.util.spec_from_file_location("example_run", PROJECT / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Run the demo once, in a directory of its own."""
    var = tmp_path_factory.mktemp("var")
    ended = manage("demo", var=var)
    assert ended.returncode == 0, ended.stdout + ended.stderr

    with sqlite3.connect(var / "shop.sqlite3") as connection:
        connection.row_factory = sqlite3.Row
        query = "SELECT * FROM dayfly_run JOIN dayfly_job ON dayfly_job.id = dayfly_run.job_id"
        runs = connection.execute(query).fetchall()
    connection.close()
    return Demo(printed=ended.stdout, warned=ended.stderr, var=var, runs=runs)


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("make_invoice", len(ORDERS)),
        ("send_order_mail", len(ORDERS)),
        ("sales_report", 1),
        ("make_thumbnails", 1),
        ("fetch_exchange_rates", 1),
        ("leak", 2),
    ],
)
def test_real_work_returns(demo: Demo, name: str, times: int) -> None:
    assert [run["outcome"] for run in demo.of(name)] == ["returned"] * times
    assert {run["status"] for run in demo.of(name)} == {"SUCCESSFUL"}


def test_error_of_the_business_is_recorded_with_its_cause(demo: Demo) -> None:
    (run,) = demo.of("raises")

    assert (run["outcome"], run["status"]) == ("raised", "FAILED")
    assert run["exception_class_path"] == "shop.tasks.PaymentRefused"
    assert "InvalidOperation" in run["traceback"]
    assert "it is not an amount" in run["traceback"]


def test_killed_child_has_its_signal_and_a_reason(demo: Demo) -> None:
    (run,) = demo.of("is_killed")

    assert (run["outcome"], run["signal"], run["status"]) == ("killed", 9, "FAILED")
    assert run["message"]
    assert run["child_rss_end_bytes"] is None
    assert run["child_peak_rss_bytes"] > MEGABYTE


def test_task_without_end_is_ended_at_its_time_limit(demo: Demo) -> None:
    (run,) = demo.of("runs_too_long")

    assert (run["outcome"], run["status"]) == ("timed_out", "FAILED")
    assert run["message"]
    assert 8 <= run["run_seconds"] < 20


def test_leak_shows_in_its_child_and_ends_with_it(demo: Demo) -> None:
    first, second = demo.of("leak")

    for run in (first, second):
        grown = run["child_rss_end_bytes"] - run["child_rss_start_bytes"]
        assert grown > 25 * MEGABYTE
        assert json.loads(run["return_value"]) == 30 * MEGABYTE
    assert abs(second["child_rss_start_bytes"] - first["child_rss_start_bytes"]) < 10 * MEGABYTE


def test_heavy_library_is_imported_in_the_child_that_uses_it(demo: Demo) -> None:
    (report,) = demo.of("sales_report")
    (rates,) = demo.of("fetch_exchange_rates")

    assert report["new_modules"] > 200
    assert rates["new_modules"] < 200


def test_parent_stays_lean(demo: Demo) -> None:
    seen = [
        run[column]
        for run in demo.runs
        for column in ("parent_rss_before_fork_bytes", "parent_rss_after_join_bytes")
        if run[column] is not None
    ]

    assert len(seen) > len(demo.runs)
    assert max(seen) - min(seen) < 5 * MEGABYTE


def test_each_order_has_its_invoice(demo: Demo) -> None:
    for number in ORDERS:
        invoice = (demo.var / f"invoices/invoice-{number}.pdf").read_bytes()
        assert invoice.startswith(b"%PDF-")
        assert b"%%EOF" in invoice[-10:]


def test_each_customer_gets_the_invoice_by_mail(demo: Demo) -> None:
    subjects = []
    for path in (demo.var / "mails").iterdir():
        mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        (attached,) = mail.iter_attachments()
        number = mail["Subject"].removeprefix("Your order ")
        invoice = demo.var / f"invoices/invoice-{number}.pdf"
        assert attached.get_filename() == invoice.name
        assert attached.get_content() == invoice.read_bytes()
        subjects.append(mail["Subject"])

    assert sorted(subjects) == [f"Your order {number}" for number in ORDERS]


def test_report_covers_all_sales(demo: Demo) -> None:
    totals = demo.value_of("sales_report")
    lines = (demo.var / "sales_report.csv").read_text().splitlines()

    assert (totals["rows"], totals["months"]) == (40_000, 24)
    assert totals["revenue"] == pytest.approx(sum(totals["revenue_by_category"].values()))
    assert len(lines) == 1 + totals["months"] * len(totals["revenue_by_category"])


def test_each_picture_has_its_thumbnail(demo: Demo) -> None:
    made = {path.name for path in (demo.var / "thumbnails").iterdir()}

    assert made == {f"{path.stem}.jpg" for path in (PROJECT / "data/pictures").iterdir()}
    assert set(demo.value_of("make_thumbnails")) == made


def test_rates_come_from_the_view(demo: Demo) -> None:
    shipped = json.loads((PROJECT / "data/exchange_rates.json").read_text())

    assert demo.value_of("fetch_exchange_rates") == shipped["rates"]
    assert json.loads((demo.var / "exchange_rates.json").read_text()) == shipped


def test_printout_has_a_line_for_each_run(demo: Demo) -> None:
    for run in demo.runs:
        arguments = ", ".join(map(str, json.loads(run["arguments"])["args"]))
        called = f"{run['task_path'].rpartition('.')[2]}({arguments})"
        lines = [line for line in demo.printed.splitlines() if line.startswith(called)]
        assert any(run["outcome"] in line for line in lines), called
    assert "The worker held between" in demo.printed


def test_printout_tells_of_the_template_beside_the_worker(demo: Demo) -> None:
    assert "a template process holds the whole project" in " ".join(demo.printed.split())


def test_each_command_of_the_printout_has_a_line_of_its_own(demo: Demo) -> None:
    lines = [line for line in demo.printed.splitlines() if "manage.py" in line]

    assert [line.split()[2:] for line in lines] == [["createsuperuser"], ["runserver"]]


@pytest.mark.parametrize("is_below", [True, False])
def test_printout_names_commands_that_run_where_run_py_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_below: bool
) -> None:
    """From the checkout's root by relative paths, from elsewhere by absolute ones."""
    place = PROJECT.parent if is_below else tmp_path
    monkeypatch.chdir(place)
    started: dict[str, Any] = {}
    run_py = load_run_py()
    monkeypatch.setattr(run_py.environment, "prepare", lambda *_, **__: sys.executable)
    monkeypatch.setattr(run_py.sys, "argv", ["run.py"])

    def note(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        started.update(how)
        return subprocess.CompletedProcess(command, 0)

    with monkeypatch.context() as patched:
        patched.setattr(run_py.subprocess, "run", note)
        run_py.main()
    code = "from shop import printout; print(printout.manage('check'))"
    variables = started["env"] | {
        "SHOP_VAR_DIR": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "shopsite.settings",
        "PYTHONPATH": f"{PROJECT.parent / 'src'}:{PROJECT}",
    }
    told = subprocess.run(
        [sys.executable, "-c", f"import django; django.setup(); {code}"],
        cwd=started["cwd"], env=variables, capture_output=True, text=True, timeout=60, check=True,
    ).stdout.strip()  # fmt: skip

    wanted = "example_project/manage.py" if is_below else str(PROJECT / "manage.py")
    assert told.split()[1:] == [wanted, "check"]
    ran = subprocess.run(
        told.split(), cwd=place, env=variables, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr


def test_nothing_of_ours_warns(demo: Demo) -> None:
    log = (demo.var / "webserver.log").read_text()
    written = [demo.printed, demo.warned, log, *(run["output"] for run in demo.runs)]
    lines = [line for text in written for line in text.splitlines() if "Warning: " in line]

    assert [
        line for line in lines if str(PROJECT.parent) in line and "site-packages" not in line
    ] == []


@pytest.mark.parametrize("settings", ["shopsite.settings", "shopsite.worker_settings"])
def test_system_checks_have_nothing_to_say(tmp_path: Path, settings: str) -> None:
    checked = manage("check", f"--settings={settings}", var=tmp_path)

    assert checked.returncode == 0, checked.stderr
    assert "no issues" in checked.stdout


def test_migrations_match_the_models(tmp_path: Path) -> None:
    compared = manage("makemigrations", "--check", "--dry-run", var=tmp_path)

    assert compared.returncode == 0, compared.stdout


def test_lean_settings_load_less(tmp_path: Path) -> None:
    """The worker's parent must not load what only serves web pages."""
    code = "import sys, django; django.setup(); print(*sys.modules)"
    loaded = manage("shell", "-c", code, "--settings=shopsite.worker_settings", var=tmp_path)

    modules = set(loaded.stdout.split())
    assert "dayfly.models" in modules
    assert not modules & {"django.contrib.auth.models", "shop.models", "shop.tasks"}
    if "django_stubs_ext" not in modules:  # the backport brings it, and it imports the admin
        assert "django.contrib.admin" not in modules
    assert not modules & {"pandas", "PIL", "reportlab"}


def test_tasks_see_the_whole_shop_through_a_template(demo: Demo) -> None:
    assert "Children come from launcher=template settings=shopsite.settings" in demo.printed
    assert "No template" not in demo.printed
    # What most tasks import was imported once, before their children were forked.
    assert all(run["new_modules"] < 20 for run in demo.of("make_invoice"))
