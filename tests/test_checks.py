from __future__ import annotations

import copy

import pytest
from django.apps import apps
from django.core import checks
from django.db import connections

from dayfly.checks import check_backends, check_commands
from dayfly.compat import task_backends
from dayfly.conf import OptionError

OURS = "dayfly.backend.DatabaseBackend"


def of_alias(alias="default"):
    return list(task_backends[alias].check())


def ids(messages):
    return [message.id for message in messages]


def test_nothing_is_wrong_with_the_tests_own_settings():
    assert [message for message in checks.run_checks() if message.id.startswith("dayfly")] == []


def test_wrong_option_is_an_error_with_a_hint(settings):
    settings.TASKS = {"default": {"BACKEND": OURS, "OPTIONS": {"LEASE_SECOND": 9, "NOTIFY": "yes"}}}

    first, second = of_alias()

    assert ids([first, second]) == ["dayfly.E001", "dayfly.E001"]
    assert first.is_serious()
    assert first.msg == """TASKS["default"]["OPTIONS"]: 'LEASE_SECOND' is not an option."""
    assert first.hint == "Did you mean LEASE_SECONDS?"
    assert "True or False" in second.hint


def test_option_beside_options_is_an_error_for_all_who_use_it(settings):
    settings.TASKS = {"default": {"BACKEND": OURS, "TIMEOUT_SECONDS": 3, "QUEUES": []}}

    (message,) = of_alias()

    assert message.id == "dayfly.E001"
    assert message.msg == "TIMEOUT_SECONDS belongs in OPTIONS of TASKS['default']."
    assert message.hint == 'Write "OPTIONS": {"TIMEOUT_SECONDS": ...}.'
    with pytest.raises(
        OptionError, match=r"TIMEOUT_SECONDS belongs in OPTIONS of TASKS\['default'\]"
    ):
        task_backends["default"].settings  # noqa: B018 - reading it is what raises


def test_missing_app_is_an_error(settings):
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "dayfly"]

    (message,) = of_alias()

    assert message.id == "dayfly.E002"
    assert message.hint == 'Add "dayfly" to INSTALLED_APPS.'


def test_unknown_database_is_an_error_that_names_the_known(settings):
    settings.TASKS = {"default": {"BACKEND": OURS, "OPTIONS": {"DATABASE": "elsewhere"}}}

    (message,) = of_alias()

    assert message.id == "dayfly.E003"
    assert "default" in message.hint


def test_unsupported_database_is_an_error(monkeypatch):
    monkeypatch.setattr(connections["default"], "vendor", "oracle")

    assert ids(of_alias()) == ["dayfly.E004"]


@pytest.mark.parametrize(("mode", "found"), [(None, 1), ("DEFERRED", 1), ("immediate", 0)])
def test_sqlite_that_begins_as_a_reader_is_warned_of(monkeypatch, mode, found):
    connection = connections["default"]
    monkeypatch.setattr(connection, "vendor", "sqlite")
    options = {"transaction_mode": mode} if mode else {}
    changed = copy.deepcopy(connection.settings_dict) | {"OPTIONS": options}
    monkeypatch.setattr(connection, "settings_dict", changed)

    assert ids(of_alias()) == ["dayfly.W002"] * found


@pytest.mark.parametrize(("debug", "found"), [(False, ["dayfly.W003"]), (True, [])])
def test_tasks_in_the_worker_itself_are_warned_of_outside_of_debugging(settings, debug, found):
    settings.TASKS = {"default": {"BACKEND": OURS, "OPTIONS": {"LAUNCHER": "inline"}}}
    settings.DEBUG = debug

    assert ids(of_alias()) == found


@pytest.mark.parametrize(
    ("option", "value", "module"),
    [
        ("TEMPLATE_SETTINGS", "tests.nowhere", "tests.nowhere"),
        ("TEMPLATE_SETTINGS", "nowhere.settings", "nowhere.settings"),
        ("RECYCLE_POLICY", "tests.nowhere.Policy", "tests.nowhere"),
        ("TEMPLATE_WARM_UP", "failing_package.warm_up.run", "failing_package.warm_up"),
        ("PRELOAD", ["tests.tasks", "nowhere"], "nowhere"),
        ("PRELOAD", ["..tests"], "..tests"),
    ],
)
def test_name_that_leads_nowhere_is_warned_of(
    settings, tmp_path, monkeypatch, option, value, module
):
    (tmp_path / "failing_package").mkdir()
    (tmp_path / "failing_package" / "__init__.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    settings.TASKS = {"default": {"BACKEND": OURS, "OPTIONS": {option: value}}}

    (message,) = of_alias()

    assert message.id == "dayfly.W004"
    assert message.msg.startswith(f"""TASKS["default"]["OPTIONS"]: {option} names '""")
    assert message.msg.endswith(f"but there is no module {module}.")
    assert message.hint


def test_name_that_leads_somewhere_is_not_followed(settings, tmp_path, monkeypatch):
    (tmp_path / "never_imported.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    options = {
        "TEMPLATE_SETTINGS": "tests.settings",
        "RECYCLE_POLICY": "never_imported.Policy",
        "TEMPLATE_WARM_UP": "never_imported.run",
        "PRELOAD": ["never_imported", "tests"],
    }
    settings.TASKS = {"default": {"BACKEND": OURS, "OPTIONS": options}}

    assert of_alias() == []


def test_checks_ask_no_database():
    """pytest-django fails on any query here: the test has no db mark."""
    assert of_alias() == of_alias("second") == []


@pytest.fixture
def channels(tmp_path, monkeypatch):
    """An app that brings a runworker of its own, as Channels does."""
    commands = tmp_path / "channels_like" / "management" / "commands"
    commands.mkdir(parents=True)
    for directory in (commands, commands.parent, commands.parent.parent):
        (directory / "__init__.py").touch()
    (commands / "runworker.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return "channels_like"


@pytest.mark.parametrize("first", [True, False])
def test_other_owner_of_runworker_is_warned_of(settings, channels, first):
    ours = list(settings.INSTALLED_APPS)
    settings.INSTALLED_APPS = [channels, *ours] if first else [*ours, channels]
    winner, loser = (channels, "dayfly") if first else ("dayfly", channels)

    (message,) = check_commands()

    assert message.id == "dayfly.W001"
    assert f"is the command of {winner}" in message.msg
    assert f"that of {loser} is hidden" in message.msg
    assert "`manage.py dayfly worker`" in message.hint
    assert ("INSTALLED_APPS" in message.hint) is first


def test_backends_are_checked_once(settings):
    """By Django itself, by the backport when it is installed, else by us."""
    settings.TASKS = {"default": {"BACKEND": OURS, "OPTIONS": {"NOTIFI": True}}}
    framework = type(task_backends).__module__
    by_django = framework == "django.tasks" or apps.is_installed("django_tasks")

    assert ids(check_backends()) == ([] if by_django else ["dayfly.E001"])
    assert ids(checks.run_checks()).count("dayfly.E001") == 1
