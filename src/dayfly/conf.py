"""
The options of one backend: TASKS[alias]["OPTIONS"], read once into one frozen object.

An option is the name of a field of Settings in upper case. Wrong options never keep
a backend from being built (that happens before apps are ready, often on import of a
task): the system check reports them, and whoever enqueues or runs gets an OptionError.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any, Literal

from django.core.exceptions import ImproperlyConfigured

from dayfly.exceptions import DayflyError


class OptionError(DayflyError, ImproperlyConfigured):
    """An option is unknown or has a wrong value. `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".rstrip())
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one backend was told. Defaults are for a small server."""

    #: Database alias of the tables; None asks the routers.
    database: str | None = None
    #: How large the arguments of one call may be, as JSON.
    max_arguments_bytes: int = 1_048_576
    #: How large the return value of a task may be, as JSON.
    max_result_bytes: int = 1_048_576
    #: How much of the end of a run's output is kept.
    max_output_bytes: int = 65_536
    #: Patterns (fnmatch) of task paths that may be enqueued and run; None allows every task.
    allowed_tasks: tuple[str, ...] | None = None
    #: Wake workers by NOTIFY after an enqueue (PostgreSQL only).
    notify: bool = True
    #: How long a worker may be silent before its jobs are rescued.
    lease_seconds: float = 60.0
    #: A job whose worker was lost this often is FAILED instead of queued again.
    max_times_lost: int = 3
    #: Hard time limit of a run; None is no limit.
    timeout_seconds: float | None = None
    #: Time after which SoftTimeLimitExceeded is raised in the task; None is no limit.
    soft_timeout_seconds: float | None = None
    #: Private memory that a run may hold beyond what its child held before; None is no limit.
    memory_limit_bytes: int | None = None
    #: What all runs of a worker may be expected to hold together; None is no limit.
    memory_budget_bytes: int | None = None
    #: Time between asking a child to end and killing it.
    kill_grace_seconds: float = 5.0
    #: USS and PSS of children are read always ("full"), never ("basic"), or ("auto") at no more
    #: than five runs a second: they cost 0.6 ms at 55 MB, twice.
    memory_detail: Literal["auto", "full", "basic"] = "auto"
    #: Children at work at once; None is the number of CPUs that the process may use.
    concurrency: int | None = None
    #: Tasks that one child serves before it is replaced; 0 is no limit.
    max_tasks_per_child: int = 1
    #: Up to so many tasks more, at random, so that children do not leave together.
    max_tasks_per_child_jitter: int = 0
    #: Dotted path of the class that decides when a child is replaced.
    recycle_policy: str | None = None
    #: How children come to be: "fork" (from the worker), "template" (from a process that has loaded
    #: the whole project) or "spawn" (a fresh interpreter each); or "inline": not at all, tasks run in
    #: the worker itself. None: "template" where TEMPLATE_SETTINGS is set, else "fork".
    launcher: Literal["fork", "template", "spawn", "inline"] | None = None
    #: Settings module of what tasks see, when the worker itself runs on leaner ones.
    template_settings: str | None = None
    #: Modules that a template imports besides the module `tasks` of each installed app.
    preload: tuple[str, ...] = ()
    #: Dotted path of a function that a template calls once it has loaded the project.
    template_warm_up: str | None = None
    #: A template that had nothing to do for so long leaves until there is work; None keeps it.
    template_idle_seconds: float | None = 600.0
    #: The code that worker and template have loaded is never freed, so that children share it for good
    #: (CPython 3.12 to 3.14; elsewhere without effect).
    immortal: bool = True
    #: The heap that children are forked from lies in huge pages, which makes forks cheaper (Linux 6.1).
    huge_pages: bool = True
    #: A template of this age is replaced, while it serves; None is no limit.
    template_max_age_seconds: float | None = None
    #: A template that holds so much more than when it was ready is replaced; None is no limit.
    template_max_growth_bytes: int | None = None
    #: Jobs claimed beyond the free children; None lets the worker choose.
    look_ahead: int | None = None
    #: Children forked ahead; None lets the worker choose.
    standby: int | None = None
    #: Working directory of tasks; None is the one the worker was started in.
    workdir: str | None = None
    #: Longest pause between two looks at the queue, in seconds.
    interval: float = 1.0
    #: How long a stopping worker waits for its children; None waits until they are done.
    grace_seconds: float | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any], alias: str) -> Settings:
        """
        Read TASKS[alias]["OPTIONS"].

        Raises:
            OptionError: names the first option that is unknown or wrong.
        """
        for message, hint in problems(options):
            place = f'TASKS["{alias}"]["OPTIONS"]'
            text = f"{place}: {message}"
            raise OptionError(text, hint)
        return cls(**{name.lower(): _tidy(value) for name, value in options.items()})


def misplaced(entry: Mapping[str, Any], alias: str) -> list[tuple[str, str]]:
    """List the options that stand in TASKS[alias] beside OPTIONS, where nobody reads them, as problems()."""
    return [
        (f"{name} belongs in OPTIONS of TASKS[{alias!r}].", f'Write "OPTIONS": {{"{name}": ...}}.')
        for name in entry
        if name in _RULES
    ]


def problems(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List what is wrong with *options*, each as (message, hint)."""
    if not isinstance(options, Mapping):
        return [(f"OPTIONS is {options!r}, not a dictionary.", 'Write "OPTIONS": {...}.')]
    found: list[tuple[str, str]] = []
    for name, value in options.items():
        rule = _RULES.get(name)
        if rule is None:
            found.append((f"{name!r} is not an option.", _suggestion(name)))
        elif not rule[0](value):
            found.append((f"{name} is {value!r}, which is not {rule[1]}.", _default_hint(name)))
    return found or _contradictions(options)


def _contradictions(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List what is wrong with options that are right each for itself."""
    hard, soft = options.get("TIMEOUT_SECONDS"), options.get("SOFT_TIMEOUT_SECONDS")
    if hard is not None and soft is not None and soft >= hard:
        message = f"SOFT_TIMEOUT_SECONDS is {soft!r}, which is not below TIMEOUT_SECONDS, {hard!r}."
        return [(message, "Leave tasks some time to clean up in between the two.")]
    return []


def is_there(module: str) -> bool:
    """Tell whether a module can be found; of what is the user's, only packages above it are imported."""
    try:
        return module in sys.modules or find_spec(module) is not None
    except Exception:  # noqa: BLE001 - packages of the user's may fail in any way
        return False  # what stands above it is not there either, or fails when it is imported


def _suggestion(name: object) -> str:
    """Say which option may have been meant."""
    text = str(name).upper()
    meant = _ALSO_CALLED.get(text)
    if meant is None:
        # TIMOUT is unlike TIMEOUT_SECONDS, but like what people remember of it.
        by_stem = {one.removesuffix("_SECONDS").removesuffix("_BYTES"): one for one in _RULES}
        known = by_stem | {one: one for one in _RULES}
        near = difflib.get_close_matches(text, list(known), n=1)
        meant = known[near[0]] if near else None
    if meant is not None:
        return f"Did you mean {meant}?"
    return f"The options are {', '.join(sorted(_RULES))}."


def _default_hint(name: str) -> str:
    """Say what holds without the option."""
    default = next(field.default for field in fields(Settings) if field.name == name.lower())
    return f"Leave it out for the default, {default!r}, or set it to {_RULES[name][1]}."


def _tidy(value: Any) -> Any:
    """Freeze what a settings module writes as a list, and take a path for the text that it is."""
    if isinstance(value, PurePath):
        return str(value)
    return tuple(value) if isinstance(value, (list, set, frozenset)) else value


Test = Callable[[Any], bool]


def _whole(least: int) -> Test:
    # bool is an int to Python, not to a person who reads a settings file.
    return lambda value: type(value) is int and value >= least


def _seconds(least: float) -> Test:
    return lambda value: type(value) in (int, float) and least <= value < float("inf")


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _path(value: Any) -> bool:
    return _text(value) or isinstance(value, PurePath)


def _dotted(value: Any) -> bool:
    return isinstance(value, str) and "." in value.strip(".") and " " not in value


def _patterns(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset)) and all(map(_text, value))


def _or_none(test: Test) -> Test:
    return lambda value: value is None or test(value)


#: For each option: the test of a value, and the words for what passes it.
_RULES: dict[str, tuple[Test, str]] = {
    "DATABASE": (_or_none(_text), "the alias of a database, or None"),
    "MAX_ARGUMENTS_BYTES": (_whole(1), "a whole number of bytes, 1 or more"),
    "MAX_RESULT_BYTES": (_whole(1), "a whole number of bytes, 1 or more"),
    "MAX_OUTPUT_BYTES": (_whole(0), "a whole number of bytes, 0 or more"),
    "ALLOWED_TASKS": (_or_none(_patterns), 'a list of patterns such as "shop.*", or None'),
    "NOTIFY": (lambda value: type(value) is bool, "True or False"),
    "LEASE_SECONDS": (_seconds(5), "a number of seconds, 5 or more"),
    "MAX_TIMES_LOST": (_whole(1), "a whole number, 1 or more"),
    "TIMEOUT_SECONDS": (_or_none(_seconds(0.001)), "a number of seconds above 0, or None"),
    "SOFT_TIMEOUT_SECONDS": (_or_none(_seconds(0.001)), "a number of seconds above 0, or None"),
    "MEMORY_LIMIT_BYTES": (_or_none(_whole(1)), "a whole number of bytes, 1 or more, or None"),
    "MEMORY_BUDGET_BYTES": (_or_none(_whole(1)), "a whole number of bytes, 1 or more, or None"),
    "KILL_GRACE_SECONDS": (_seconds(0), "a number of seconds, 0 or more"),
    "MEMORY_DETAIL": (
        lambda value: value in ("auto", "full", "basic"),
        '"auto", "full" or "basic"',
    ),
    "CONCURRENCY": (_or_none(_whole(1)), "a whole number, 1 or more, or None"),
    "MAX_TASKS_PER_CHILD": (_whole(0), "a whole number, 0 (no limit) or more"),
    "MAX_TASKS_PER_CHILD_JITTER": (_whole(0), "a whole number, 0 or more"),
    "RECYCLE_POLICY": (_or_none(_dotted), "the dotted path of a class, or None"),
    "LAUNCHER": (
        lambda value: value in ("fork", "template", "spawn", "inline", None),
        '"fork", "template", "spawn", "inline" or None',
    ),
    "TEMPLATE_SETTINGS": (_or_none(_dotted), "the dotted path of a settings module, or None"),
    "PRELOAD": (_patterns, "a list of module names"),
    "TEMPLATE_WARM_UP": (_or_none(_dotted), "the dotted path of a function, or None"),
    "TEMPLATE_IDLE_SECONDS": (_or_none(_seconds(0)), "a number of seconds, 0 or more, or None"),
    "IMMORTAL": (lambda value: type(value) is bool, "True or False"),
    "HUGE_PAGES": (lambda value: type(value) is bool, "True or False"),
    "TEMPLATE_MAX_AGE_SECONDS": (_or_none(_seconds(1)), "a number of seconds, 1 or more, or None"),
    "TEMPLATE_MAX_GROWTH_BYTES": (
        _or_none(_whole(1)),
        "a whole number of bytes, 1 or more, or None",
    ),
    "LOOK_AHEAD": (_or_none(_whole(0)), "a whole number, 0 or more, or None"),
    "STANDBY": (_or_none(_whole(0)), "a whole number, 0 or more, or None"),
    "WORKDIR": (_or_none(_path), "the path of a directory, or None"),
    "INTERVAL": (_seconds(0), "a number of seconds, 0 or more"),
    "GRACE_SECONDS": (_or_none(_seconds(0)), "a number of seconds, 0 or more, or None"),
}


#: What other task queues call an option, which no likeness leads to.
_ALSO_CALLED = dict.fromkeys(("WORKERS", "PROCESSES", "THREADS"), "CONCURRENCY")


def settings_for(alias: str) -> Settings:
    """
    Give the settings of the backend *alias*.

    Raises:
        OptionError: an option is wrong, or the backend is not one of ours.
    """
    from dayfly.compat import task_backends

    settings = getattr(task_backends[alias], "settings", None)
    if not isinstance(settings, Settings):
        message = f'TASKS["{alias}"] is not a Dayfly backend.'
        raise OptionError(message, 'Set its BACKEND to "dayfly.backend.DatabaseBackend".')
    return settings
