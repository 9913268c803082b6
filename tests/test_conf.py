from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from dayfly.compat import task_backends
from dayfly.conf import _RULES, OptionError, Settings, problems, settings_for
from dayfly.exceptions import DayflyError


def test_defaults_pass_their_own_rules():
    options = {field.name.upper(): field.default for field in fields(Settings)}

    assert problems(options) == []
    assert Settings.from_options(options, "default") == Settings()


def test_every_field_is_an_option():
    assert {field.name.upper() for field in fields(Settings)} == set(_RULES)


def test_options_become_fields():
    settings = Settings.from_options(
        {"LEASE_SECONDS": 5, "ALLOWED_TASKS": ["shop.*"], "MEMORY_DETAIL": "basic"}, "default"
    )

    assert settings.lease_seconds == 5
    assert settings.allowed_tasks == ("shop.*",)
    assert settings.memory_detail == "basic"
    assert settings.max_times_lost == 3


def test_directory_may_be_a_path_as_base_dir_is():
    assert Settings.from_options({"WORKDIR": Path("/srv/shop")}, "default").workdir == "/srv/shop"


def test_settings_cannot_change():
    with pytest.raises(FrozenInstanceError):
        Settings().notify = False


def test_unknown_option_names_the_one_that_was_meant():
    ((message, hint),) = problems({"LEASE_SECOND": 60})

    assert message == "'LEASE_SECOND' is not an option."
    assert hint == "Did you mean LEASE_SECONDS?"


def test_lower_case_option_names_the_upper_case_one():
    ((_, hint),) = problems({"notify": True})

    assert hint == "Did you mean NOTIFY?"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TIMOUT", "TIMEOUT_SECONDS"),
        ("TIMEOUT", "TIMEOUT_SECONDS"),
        ("MEMORY_LIMIT", "MEMORY_LIMIT_BYTES"),
        ("lease", "LEASE_SECONDS"),
        ("WORKERS", "CONCURRENCY"),
        ("processes", "CONCURRENCY"),
        ("THREADS", "CONCURRENCY"),
    ],
)
def test_half_a_name_or_that_of_other_queues_names_the_option(name, meant):
    ((_, hint),) = problems({name: 1})

    assert hint == f"Did you mean {meant}?"


def test_unknown_option_like_no_other_lists_them_all():
    ((_, hint),) = problems({"ZZZZ": 1})

    assert all(name in hint for name in _RULES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE", ""),
        ("DATABASE", 1),
        ("MAX_ARGUMENTS_BYTES", 0),
        ("MAX_ARGUMENTS_BYTES", True),
        ("MAX_RESULT_BYTES", 1.5),
        ("MAX_OUTPUT_BYTES", -1),
        ("ALLOWED_TASKS", "shop.*"),
        ("ALLOWED_TASKS", [1]),
        ("NOTIFY", 1),
        ("LEASE_SECONDS", 4.9),
        ("LEASE_SECONDS", float("nan")),
        ("LEASE_SECONDS", float("inf")),
        ("MAX_TIMES_LOST", 0),
        ("TIMEOUT_SECONDS", 0),
        ("SOFT_TIMEOUT_SECONDS", 0),
        ("MEMORY_LIMIT_BYTES", 0),
        ("MEMORY_LIMIT_BYTES", 1.5),
        ("MEMORY_BUDGET_BYTES", -1),
        ("KILL_GRACE_SECONDS", None),
        ("MEMORY_DETAIL", "none"),
        ("MEMORY_DETAIL", []),
        ("CONCURRENCY", 0),
        ("MAX_TASKS_PER_CHILD", -1),
        ("RECYCLE_POLICY", "Policy"),
        ("TEMPLATE_MAX_AGE_SECONDS", 0),
        ("TEMPLATE_MAX_GROWTH_BYTES", 1.5),
        ("LOOK_AHEAD", -1),
        ("STANDBY", "2"),
        ("WORKDIR", ""),
        ("INTERVAL", -0.1),
        ("GRACE_SECONDS", "long"),
    ],
)
def test_wrong_value_is_named_with_what_would_be_right(name, value):
    ((message, hint),) = problems({name: value})

    assert message.startswith(f"{name} is {value!r}, which is not ")
    assert "default" in hint
    with pytest.raises(OptionError):
        Settings.from_options({name: value}, "default")


def test_soft_time_limit_must_be_below_the_hard_one():
    ((message, hint),) = problems({"SOFT_TIMEOUT_SECONDS": 60, "TIMEOUT_SECONDS": 60})

    assert message == "SOFT_TIMEOUT_SECONDS is 60, which is not below TIMEOUT_SECONDS, 60."
    assert "clean up" in hint
    assert problems({"SOFT_TIMEOUT_SECONDS": 60}) == []
    assert problems({"SOFT_TIMEOUT_SECONDS": 60, "TIMEOUT_SECONDS": 61}) == []
    assert problems({"SOFT_TIMEOUT_SECONDS": 60, "TIMEOUT_SECONDS": None}) == []


def test_options_that_are_no_dictionary_are_one_problem():
    ((message, _),) = problems(["NOTIFY"])

    assert "not a dictionary" in message


def test_error_names_the_alias_and_carries_the_hint():
    with pytest.raises(OptionError, match=r'TASKS\["mail"\]\["OPTIONS"\]') as caught:
        Settings.from_options({"NOTIFI": True}, "mail")

    assert caught.value.hint == "Did you mean NOTIFY?"
    assert isinstance(caught.value, ImproperlyConfigured)
    assert isinstance(caught.value, DayflyError)


def test_settings_of_an_alias_are_read_once(settings):
    settings.TASKS = {
        "default": {
            "BACKEND": "dayfly.backend.DatabaseBackend",
            "OPTIONS": {"MAX_TIMES_LOST": 7},
        }
    }

    assert settings_for("default").max_times_lost == 7
    assert settings_for("default") is task_backends["default"].settings


def test_settings_of_another_backend_are_refused(settings):
    package = type(task_backends).__module__
    settings.TASKS = {"default": {"BACKEND": f"{package}.backends.dummy.DummyBackend"}}

    with pytest.raises(OptionError, match="not a Dayfly backend"):
        settings_for("default")
