"""From flags and settings to the options of a worker."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command, get_commands, load_command_class
from django.core.management.base import CommandError, CommandParser
from django.test import override_settings

from dayfly.compat import task_backends
from dayfly.conf import Settings
from dayfly.executor import AfterCalls
from dayfly.management import workercommand
from dayfly.worker import announcer
from dayfly.worker.options import WorkerOptions, default_name, usable_cpus
from tests.helpers import run_script
from tests.lifecycle.policies import InPairs


def options_of(*flags: str, **options: Any) -> WorkerOptions:
    """Return what a worker with these flags and OPTIONS would be given."""
    parser = CommandParser(called_from_command_line=False)
    workercommand.add_arguments(parser)
    parsed = vars(parser.parse_args(list(flags)))
    if not options:
        return workercommand.make_options(parsed)
    with with_options(options):
        return workercommand.make_options(parsed)


def with_options(options: dict[str, Any]) -> Any:
    backend = {"BACKEND": "dayfly.backend.DatabaseBackend", "QUEUES": [], "OPTIONS": options}
    return override_settings(TASKS={"default": backend})


def test_without_flags_the_settings_hold() -> None:
    options = options_of()

    assert (options.backend_name, options.using) == ("default", "default")
    assert (options.queues, options.exclude_queues) == (None, ())
    assert options.concurrency == usable_cpus()
    assert options.policy == AfterCalls(1, 0)
    assert (options.standby, options.max_tasks, options.batch) == (None, None, False)
    assert (options.interval, options.grace_seconds, options.workdir) == (1.0, None, None)
    assert (options.reload, options.show_output) == (False, False)
    assert options.settings is task_backends["default"].settings


@pytest.mark.parametrize(
    ("option", "flag", "name", "from_option", "from_flag"),
    [
        ("CONCURRENCY", "--concurrency=7", "concurrency", 3, 7),
        ("STANDBY", "--standby=0", "standby", 3, 0),
        ("INTERVAL", "--interval=0", "interval", 3, 0),
        ("GRACE_SECONDS", "--grace=0", "grace_seconds", 3, 0),
        ("WORKDIR", "--workdir=/b", "workdir", "/a", "/b"),
        ("MAX_TASKS_PER_CHILD", "--max-tasks-per-child=0", "policy", 3, 0),
    ],
)
def test_flag_overrules_its_option(
    option: str, flag: str, name: str, from_option: Any, from_flag: Any
) -> None:
    def expected(value: Any) -> Any:
        return AfterCalls(value, 0) if name == "policy" else value

    assert getattr(options_of(**{option: from_option}), name) == expected(from_option)
    assert getattr(options_of(flag, **{option: from_option}), name) == expected(from_flag)


@pytest.mark.parametrize(
    ("flags", "queues", "exclude"),
    [
        ([], None, ()),
        (["--queues=*"], None, ()),
        (["--queues=mail, reports,"], ("mail", "reports"), ()),
        (["--queues=mail,*"], None, ()),
        (["--queue-name=mail"], ("mail",), ()),
        (["--queue=mail"], ("mail",), ()),
        (["--exclude-queues=mail,reports"], None, ("mail", "reports")),
    ],
)
def test_queues_are_named_with_commas(
    flags: list[str], queues: tuple[str, ...] | None, exclude: tuple[str, ...]
) -> None:
    options = options_of(*flags)

    assert (options.queues, options.exclude_queues) == (queues, exclude)
    assert (options.selection.queues, options.selection.exclude) == (queues, exclude)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--queues=mail", "--exclude-queues=other"], "can only be used with --queues="),
        (["--queues="], "names no queue"),
        (["--queues=,"], "names no queue"),
        (["--worker-id="], "1 to 64 characters"),
        ([f"--worker-id={'x' * 65}"], "1 to 64 characters"),
        (["--backend=nowhere"], "nowhere"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags: list[str], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        options_of(*flags)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--concurrency=0", "above 0"),
        ("--concurrency=1.5", "above 0"),
        ("--max-tasks=none", "above 0"),
        ("--standby=-1", "from 0 up"),
        ("--interval=inf", "number of seconds"),
        ("--grace=soon", "number of seconds"),
    ],
)
def test_wrong_values_are_refused(flag: str, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        options_of(flag)


def test_reload_follows_debug_and_spares_a_batch() -> None:
    with override_settings(DEBUG=True):
        assert options_of().reload is True
        assert options_of("--no-reload").reload is False
        assert options_of("--batch").reload is False
    assert options_of("--reload").reload is True


def test_policy_is_made_from_its_path() -> None:
    options = options_of(RECYCLE_POLICY="tests.lifecycle.policies.InPairs")

    assert isinstance(options.policy, InPairs)


@pytest.mark.parametrize("kind", ["NeedsAnArgument", "not_a_class"])
def test_policy_that_cannot_be_made_is_one_sentence(kind: str) -> None:
    with pytest.raises(CommandError, match=f"{kind}' is to be a class that is made without arg"):
        options_of(RECYCLE_POLICY=f"tests.lifecycle.policies.{kind}")


def test_queue_that_nothing_can_be_enqueued_on_is_told(caplog: pytest.LogCaptureFixture) -> None:
    backend = {"BACKEND": "dayfly.backend.DatabaseBackend", "QUEUES": ["default", "mail"]}

    with override_settings(TASKS={"default": backend}):
        assert options_of("--queues=mail,defualt").queues == ("mail", "defualt")
        options_of("--exclude-queues=mail")

    assert caplog.messages == [
        "No task can be enqueued on defualt: QUEUES of TASKS['default'] has only default, mail."
    ]


FOR_TEMPLATES = {
    "PRELOAD": ["x"],
    "TEMPLATE_WARM_UP": "a.b",
    "TEMPLATE_MAX_AGE_SECONDS": 60,
    "TEMPLATE_MAX_GROWTH_BYTES": 1,
}
LEAN = {"TEMPLATE_SETTINGS": "tests.settings"}


@pytest.mark.parametrize(
    ("flags", "options", "names"),
    [
        (["--preload=x", "--template-idle-seconds=1"], {}, ["PRELOAD", "TEMPLATE_IDLE_SECONDS"]),
        (["--launcher=spawn"], FOR_TEMPLATES | LEAN, list(FOR_TEMPLATES)),
        (["--launcher=fork"], LEAN, list(LEAN)),
        (["--launcher=inline", "--preload=x"], LEAN, ["TEMPLATE_SETTINGS", "PRELOAD"]),
        (["--launcher=template", "--template-idle-seconds=1"], FOR_TEMPLATES | LEAN, []),
        (["--launcher=fork"], {"TEMPLATE_IDLE_SECONDS": None}, []),
    ],
)
def test_options_for_a_template_are_warned_of_where_there_is_none(
    caplog: pytest.LogCaptureFixture, flags: list[str], options: dict[str, Any], names: list[str]
) -> None:
    found = options_of(*flags, **options)

    announcer.starting(found)

    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert [text.partition(" is without effect ")[0] for text in warnings] == names
    assert all(f"with launcher={found.launcher}" in text for text in warnings)


def test_settings_of_a_template_are_found_without_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_for_tasks").mkdir()
    (tmp_path / "only_for_tasks" / "__init__.py").write_text("1 / 0")
    (tmp_path / "only_for_tasks" / "settings.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    options = options_of("--template-settings=only_for_tasks.settings")

    assert options.template_settings == "only_for_tasks.settings"


def test_flags_of_django_may_stand_behind_the_subcommand() -> None:
    parser = load_command_class("dayfly", "dayfly").create_parser("manage.py", "dayfly")

    behind = parser.parse_args(["worker", "--settings=one", "-v", "2", "--traceback"])
    in_front = parser.parse_args(["--settings=one", "-v", "2", "--traceback", "worker"])
    neither = parser.parse_args(["worker"])

    assert behind == in_front
    assert (behind.settings, behind.verbosity, behind.traceback) == ("one", 2, True)
    assert (neither.settings, neither.verbosity, neither.traceback) == (None, 1, False)


@pytest.mark.parametrize(("subcommand", "typo"), [("prune", "--dryrun"), ("worker", "--bach")])
def test_subcommand_that_is_given_what_it_does_not_know_shows_its_own_usage(
    capsys: pytest.CaptureFixture[str], subcommand: str, typo: str
) -> None:
    command = load_command_class("dayfly", "dayfly")
    command._called_from_command_line = True
    parser = command.create_parser("manage.py", "dayfly")

    with pytest.raises(SystemExit) as caught:
        parser.parse_args([subcommand, typo])

    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert said.startswith(f"usage: manage.py dayfly {subcommand} ")
    assert f"unrecognized arguments: {typo}" in said
    with pytest.raises(CommandError, match=f"unrecognized arguments: {typo}"):
        call_command("dayfly", subcommand, typo)


@pytest.mark.parametrize(
    ("subcommand", "words"),
    [("prune", "Jobs that wait or run are never touched."), ("worker", "ask twice to stop them")],
)
def test_help_of_a_subcommand_says_what_it_does(subcommand: str, words: str) -> None:
    parser = load_command_class("dayfly", "dayfly").create_parser("manage.py", "dayfly")
    (subparsers,) = (each for each in parser._actions if each.dest == "subcommand")
    described = subparsers.choices[subcommand]

    assert words in " ".join(described.format_help().split())
    assert [action.dest for action in described._actions if not action.help] == []


def test_flag_of_db_worker_is_accepted() -> None:
    assert options_of("--no-startup-delay", "--queue-name=mail", "--interval=2").interval == 2


def test_names_differ() -> None:
    names = {default_name() for _ in range(50)}

    assert len(names) == 50
    assert all(len(name) <= 64 for name in names)


def test_both_commands_have_the_same_flags() -> None:
    runworker = load_command_class("dayfly", "runworker").create_parser("manage.py", "runworker")
    parser = load_command_class("dayfly", "dayfly").create_parser("manage.py", "dayfly")
    (subparsers,) = (each for each in parser._actions if each.dest == "subcommand")

    ours = flags_of(subparsers.choices["worker"])

    assert "--max-tasks-per-child" in ours
    assert ours <= flags_of(runworker)
    assert get_commands()["runworker"] == "dayfly"


def flags_of(parser: Any) -> set[str]:
    return {flag for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("command", [("runworker",), ("dayfly", "worker")])
def test_wrong_backend_is_one_sentence(command: tuple[str, ...]) -> None:
    with pytest.raises(CommandError, match="nowhere") as caught:
        call_command(*command, "--backend=nowhere")

    assert "\n" not in str(caught.value)


def test_command_needs_a_subcommand() -> None:
    with pytest.raises(CommandError, match="subcommand"):
        call_command("dayfly")


@pytest.mark.parametrize(
    ("flags", "options"), [(["--launcher=inline"], {}), ([], {"LAUNCHER": "inline"})]
)
def test_worker_that_runs_tasks_itself_does_one_thing_at_a_time(
    flags: list[str], options: dict[str, Any]
) -> None:
    found = options_of(
        *flags, **{"CONCURRENCY": 4, "LOOK_AHEAD": 9, "LEASE_SECONDS": 60, **options}
    )

    assert found.is_inline
    assert (found.concurrency, found.look_ahead) == (1, 0)
    assert found.lease_seconds == 3_600
    assert found.settings.lease_seconds == 60
    assert options_of().lease_seconds == 60


@pytest.mark.parametrize(
    ("set_by_project", "verbosity", "level"),
    [
        (logging.NOTSET, 1, logging.INFO),
        (logging.WARNING, 1, logging.WARNING),
        (logging.WARNING, 2, logging.DEBUG),
        (logging.WARNING, 0, logging.CRITICAL),
    ],
)
def test_project_says_how_much_is_logged_unless_a_flag_does(
    monkeypatch: pytest.MonkeyPatch, set_by_project: int, verbosity: int, level: int
) -> None:
    logger = logging.Logger("apart", set_by_project)  # noqa: LOG001 - one that is in nobody's tree
    monkeypatch.setattr(workercommand, "logger", logger)

    workercommand._configure_logging(verbosity, io.StringIO())

    assert logger.level == level


def test_line_of_the_log_tells_when_and_how_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.Logger("apart")  # noqa: LOG001 - one that is in nobody's tree
    monkeypatch.setattr(workercommand, "logger", logger)
    stream = io.StringIO()
    workercommand._configure_logging(1, stream)

    logger.warning("Look.")

    assert re.fullmatch(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] WARNING Look\.\n", stream.getvalue())


@pytest.mark.parametrize(
    ("count", "lines"),
    [
        (
            1,
            [
                "Stopping: no more claims, 1 task finishes. Ask again to stop it.",
                "Stopping 1 running task: it goes back.",
                "Stopped after 1 task.",
            ],
        ),
        (
            2,
            [
                "Stopping: no more claims, 2 tasks finish. Ask again to stop them.",
                "Stopping 2 running tasks: they go back.",
                "Stopped after 2 tasks.",
            ],
        ),
    ],
)
def test_one_task_is_not_said_to_be_many(
    caplog: pytest.LogCaptureFixture, count: int, lines: list[str]
) -> None:
    options = WorkerOptions(settings=Settings(), name="me")

    with caplog.at_level(logging.INFO):
        announcer.stopping(options, running=count)
        announcer.hurrying(running=count)
        announcer.stopped(options, count)

    assert [text.partition(" worker_id=")[0] for text in caplog.messages] == lines


def test_daemon_does_not_hold_what_draws_a_progress_bar() -> None:
    program = """
        import sys
        from dayfly.management.progress import progress_bar
        with progress_bar(lambda: None, unit="task") as done:
            done(1)
        print("tqdm" in sys.modules)
    """
    assert run_script(program).strip() == "False"
