"""
The pages name everything that there is, link to what exists, and their examples run.

A fenced `python` block whose first line is a comment with a path (`# shop/tasks.py`) is
that file; one for `project/settings.py` is added to a small project's settings. The other
blocks of a page are run in their order, in a project made of its files.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import load_command_class
from django.utils.module_loading import import_string

from dayfly import compat, exceptions
from dayfly.conf import Settings
from dayfly.executor import Outcome
from dayfly.management import prunecommand
from dayfly.models import Job, JobStatus, Run, Worker
from tests.helpers import ROOT, environment

DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md"), ROOT / "benchmarks" / "README.md"])
#: Their examples are run by tests of their own.
TESTED_ELSEWHERE = {"embedding.md", "limits.md"}
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w/]+\.py)\n")
LINK = re.compile(r"\]\(([^)\s]+)\)")
SETTINGS = """
SECRET_KEY = "docs"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
ROOT_URLCONF = "project.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
DATABASES["default"]["OPTIONS"] = {"transaction_mode": "IMMEDIATE"}
"""
#: Makes dayfly of a page that does not say how: by the defaults.
TASKS = """
if "dayfly" not in INSTALLED_APPS:
    INSTALLED_APPS.append("dayfly")
    TASKS = {"default": {"BACKEND": "dayfly.backend.DatabaseBackend"}}
"""


def page(name: str) -> str:
    return (DOCS / name).read_text()


def python_blocks(path: Path) -> list[str]:
    """Return the python blocks of a page, taken out of the lists that they stand in."""
    return [
        "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))
        for indent, language, text in FENCE.findall(path.read_text())
        if language == "python"
    ]


def rows(text: str) -> dict[str, list[str]]:
    """Return the rows of all tables in *text*, by their first cell."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| "):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            found[cells[0]] = cells
    return found


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings of a page."""
    outside_of_code = FENCE.sub("", path.read_text())
    headings = re.findall(r"^#+ (.+)$", outside_of_code, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def parser_of_prune() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    prunecommand.add_arguments(parser)
    return parser


def parser_of_runworker() -> argparse.ArgumentParser:
    return load_command_class("dayfly", "runworker").create_parser("manage.py", "runworker")


# Words


@pytest.mark.parametrize("option", fields(Settings), ids=lambda field: field.name)
def test_every_option_stands_in_its_page_with_its_default(option) -> None:
    row = rows(page("settings.md"))[f"`{option.name.upper()}`"]

    default = str(option.default).replace("'", '"')
    assert row[2].strip("`").strip('"') == default.strip('"')
    assert len(row) == 4
    assert row[3]


@pytest.mark.parametrize(("command", "at_least"), [("runworker", 15), ("dayfly prune", 5)])
def test_every_flag_stands_in_its_page(command: str, at_least: int) -> None:
    text = page("settings.md").partition(f"## Flags of {command}\n")[2].partition("\n## ")[0]
    django_own = {"help", "version", "verbosity", "settings", "pythonpath", "traceback"}
    django_own |= {"no_color", "force_color", "skip_checks"}
    parser = parser_of_prune() if command == "dayfly prune" else parser_of_runworker()
    ours = [
        flag
        for action in parser._actions
        if action.dest not in django_own
        for flag in action.option_strings
    ]

    assert len(ours) > at_least
    assert [flag for flag in ours if f"`{flag}" not in text] == []
    named = re.findall(r"`(--[\w-]+)", text)
    assert [flag for flag in named if flag not in ours] == []


def test_every_outcome_stands_in_the_table_of_outcomes() -> None:
    text = page("life-of-a-task.md").partition("## Outcomes")[2]

    named = {word.strip("`") for word in rows(text)} & set(Outcome)
    assert named == set(Outcome)
    assert all(f"`{outcome}`" in page("glossary.md") for outcome in Outcome)


def test_every_outcome_becomes_what_the_page_says() -> None:
    from dayfly.worker.record import STATUS_AFTER

    table = rows(page("life-of-a-task.md").partition("## Outcomes")[2])
    for outcome, status in STATUS_AFTER.items():
        assert table[f"`{outcome}`"][2].startswith(f"`{status.value}`")


@pytest.mark.parametrize("model", [Run, Worker], ids=lambda model: model.__name__)
def test_every_figure_stands_in_the_page_about_memory(model) -> None:
    text = page("memory.md")
    names = [field.name for field in model._meta.fields]
    if model is Worker:
        names = [name for name in names if name.endswith("_bytes") or name == "children"]

    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_figure_of_a_run_has_source_cost_and_blind_spot() -> None:
    table = (
        page("memory.md").partition("## What a run records")[2].partition("The rest of a run")[0]
    )
    explained = {
        name.strip(" `"): cells for names, cells in rows(table).items() for name in names.split(",")
    }
    figures = [
        field.name for field in Run._meta.fields if field.name.endswith(("_bytes", "_faults"))
    ]

    assert figures
    for name in figures:
        assert len(explained[name]) == 6, name
        assert all(explained[name][:5]), name


def test_every_model_and_state_of_a_job_is_named() -> None:
    words = page("glossary.md")
    life = page("life-of-a-task.md")

    assert set(apps.get_app_config("dayfly").get_models()) == {Job, Run, Worker}
    assert all(f"`{model.__name__}`" in words for model in (Job, Run, Worker))
    assert [state for state in JobStatus.values if state not in life] == []


GLOSSARY = """task job queue claim lease epoch heartbeat rescue worker parent child template launcher standby run attempt
outcome limits grace drain recycle prune RSS USS PSS RssAnon""".split()  # noqa: SIM905 - a list of words reads better so


@pytest.mark.parametrize("word", [*GLOSSARY, "lean settings"])
def test_glossary_explains(word: str) -> None:
    assert rows(page("glossary.md"))[f"**{word}**"][1]


def test_every_exception_is_explained() -> None:
    text = page("when-things-go-wrong.md")
    named = [
        kind.__name__
        for kind in vars(exceptions).values()
        if isinstance(kind, type) and kind is not exceptions.DayflyError
    ]

    assert [name for name in named if f"dayfly.exceptions.{name}`" not in text] == []
    paths = re.findall(r"`(dayfly\.[a-z.]+\.[A-Z]\w+)`", text)
    assert {"dayfly.conf.OptionError", "dayfly.executor.errors.WorkdirGone"} <= set(paths)
    assert all(isinstance(import_string(path), type) for path in paths)


def test_every_check_is_explained() -> None:
    source = (ROOT / "src/dayfly/checks.py").read_text()
    ids = re.findall(r'id="([\w.]+)"', source)

    assert ids
    assert [each for each in ids if f"`{each}`" not in page("settings.md")] == []


WARNING = re.compile(r'logger\.(?:warning|error)\(\s*((?:f?"[^"]*"\s*)+)', re.DOTALL)


def test_every_warning_of_the_worker_is_explained() -> None:
    """By the words that stand between its parameters."""
    text = page("when-things-go-wrong.md")
    found = []
    for path in sorted((ROOT / "src/dayfly").rglob("*.py")):
        for literal in WARNING.findall(path.read_text()):
            message = "".join(re.findall(r'"([^"]*)"', literal))
            found.append(max(re.split(r"%\.?\d*[a-z]| \w+=", message), key=len).strip())

    assert len(found) > 8
    assert [words for words in found if words not in text] == []


# Links


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", path.read_text())):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)

    assert broken == []


def test_every_page_is_in_the_index() -> None:
    linked = {target.partition("#")[0] for target in LINK.findall(page("index.md"))}

    assert {path.name for path in DOCS.glob("*.md")} - {"index.md"} == linked


def test_every_path_of_the_repository_exists() -> None:
    named = set()
    for path in PAGES:
        named |= set(
            re.findall(r"`((?:src|example_project|benchmarks|tests)/[\w/.]+)`", path.read_text())
        )

    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_readme_has_one_line_for_each_of_its_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()

    for heading, command in (
        ("## Run it", "python3 example_project/run.py"),
        ("## Test it", "python3 tests/run.py"),
    ):
        assert f"\n{heading}\n\n```\n{command}\n```\n" in readme


# Examples


def project_of(path: Path, directory: Path) -> list[str]:
    """Write the files of a page below *directory*; return the blocks that are to be run."""
    files = {"project/__init__.py": "", "project/urls.py": "urlpatterns = []\n"}
    files["project/settings.py"] = SETTINGS
    to_run = []
    for block in python_blocks(path):
        if compat.TASKS_LOGGER_NAME == "django_tasks":
            block = block.replace("django.tasks", "django_tasks")
        named = FILE.match(block)
        if named is None:
            to_run.append(block)
        elif named[1] == "project/settings.py":
            files["project/settings.py"] += block
        else:
            assert named[1] not in files, f"{named[1]} stands twice in {path.name}"
            files[named[1]] = block
    files["project/settings.py"] += TASKS
    for name, text in files.items():
        file = directory / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        (file.parent / "__init__.py").touch()
    return to_run


def python(directory: Path, *arguments: str, settings: str = "project.settings") -> str:
    variables = environment(DJANGO_SETTINGS_MODULE=settings)
    variables["PYTHONPATH"] += f":{directory}"
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=directory,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


WITH_PYTHON = [path for path in PAGES if python_blocks(path) and path.name not in TESTED_ELSEWHERE]


def test_pages_with_examples_were_found() -> None:
    assert {"README.md", "quickstart.md", "settings.md", "lean-settings.md", "deploying.md"} <= {
        path.name for path in WITH_PYTHON
    }


@pytest.mark.parametrize("path", WITH_PYTHON, ids=lambda path: path.name)
def test_examples_of_a_page_work(path: Path, tmp_path: Path) -> None:
    to_run = project_of(path, tmp_path)
    modules = sorted(tmp_path.glob("*/*.py"))
    checked = [each.stem for each in modules if each.name.endswith("settings.py")]

    for name in checked:
        out = python(tmp_path, "-m", "django", "check", settings=f"project.{name}")
        assert "no issues" in out
    importing = [f"import {each.parent.name}.{each.stem}" for each in modules]
    python(
        tmp_path,
        "-c",
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        "call_command('migrate', verbosity=0)\n"
        + "\n".join(line for line in importing if "settings" not in line)
        + "\n"
        + "\n".join(to_run),
    )


def test_check_finds_a_wrong_option_as_the_quickstart_says(tmp_path: Path) -> None:
    project_of(DOCS / "quickstart.md", tmp_path)
    settings = tmp_path / "project" / "settings.py"
    settings.write_text(settings.read_text().replace("TIMEOUT_SECONDS", "TIMEOUT_SECOND"))

    with pytest.raises(AssertionError) as failed:
        python(tmp_path, "-m", "django", "check")

    assert str(failed.value).count("dayfly.E001") == 1
    assert "HINT: Did you mean TIMEOUT_SECONDS?" in str(failed.value)


def test_worker_takes_the_settings_of_the_readme(tmp_path: Path) -> None:
    """The four steps, as a reader takes them: what was enqueued is done."""
    to_run = project_of(ROOT / "README.md", tmp_path)
    python(tmp_path, "-m", "django", "migrate", "-v", "0")
    python(tmp_path, "-c", "import django; django.setup()\n" + "\n".join(to_run))

    log = python(tmp_path, "-m", "django", "runworker", "--batch")

    assert "Task reports.tasks.build: RSS=" in log
    assert ", successful id=" in log


def test_recycle_policy_of_the_page_is_taken(tmp_path: Path) -> None:
    project_of(DOCS / "settings.md", tmp_path)
    python(tmp_path, "-m", "django", "migrate", "-v", "0")

    log = python(tmp_path, "-m", "django", "runworker", "--batch", "--concurrency=1")

    assert "No more tasks to run" in log


@pytest.mark.parametrize(
    ("name", "settings"),
    [("launchers.md", "project.settings"), ("lean-settings.md", "project.lean_settings")],
)
def test_template_of_a_page_is_loaded_and_runs_tasks(
    name: str, settings: str, tmp_path: Path
) -> None:
    project_of(DOCS / name, tmp_path)
    settings_of_the_page = (tmp_path / "project/settings.py").read_text()
    project_of(DOCS / "quickstart.md", tmp_path)  # for its task
    more = '\nINSTALLED_APPS.append("reports")\n'
    (tmp_path / "project/settings.py").write_text(settings_of_the_page + more)
    python(tmp_path, "-m", "django", "migrate", "-v", "0")
    python(
        tmp_path,
        "-c",
        "import django; django.setup()\nfrom reports.tasks import build; build.enqueue(2026)",
    )

    log = python(tmp_path, "-m", "django", "runworker", "--batch", settings=settings)

    assert "Children come from launcher=template settings=project.settings" in log
    assert " is ready after " in log
    assert "Task reports.tasks.build: RSS=" in log
    assert ", successful id=" in log
