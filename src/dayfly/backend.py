"""
The face to Django Tasks: enqueue a call, give back its result.

    @task -> enqueue -> queue.add -> ... -> get_result

Built before apps are ready (a @task in a module imported early does that), so the
models and the queue are imported where they are used.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import MAXYEAR, MINYEAR
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.apps import apps
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router, transaction

from dayfly import results
from dayfly.compat import (
    BaseTaskBackend,
    InvalidTask,
    Task,
    TaskResult,
    TaskResultDoesNotExist,
    normalize_json,
    task_backends,
    task_enqueued,
)
from dayfly.conf import OptionError, Settings, misplaced
from dayfly.exceptions import ArgumentsNotJSON, ArgumentsTooLarge, TaskNotAllowed, TaskNotFound

if TYPE_CHECKING:
    from dayfly.models import Job, Run
    from dayfly.queue import NewJob

#: At most one NOTIFY per queue and process in this time.
NOTIFY_PAUSE_SECONDS = 0.010

#: In which `run_after` may be: a day before and after them there is in every time zone.
YEARS = range(MINYEAR + 1, MAXYEAR)


class _TaskNotAllowed(TaskNotAllowed, InvalidTask):
    """Also what callers of Django's validate_task expect. Rows name the class that people may catch."""


_TaskNotAllowed.__module__, _TaskNotAllowed.__qualname__ = (
    TaskNotAllowed.__module__,
    "TaskNotAllowed",
)


class DatabaseBackend(BaseTaskBackend):
    """Keeps jobs in the project's database; `manage.py runworker` runs them."""

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, dict(params))
        #: Options beside OPTIONS, as (message, hint).
        self.misplaced = misplaced(params, alias)
        self._notified_at: dict[str, float] = {}

    @cached_property
    def settings(self) -> Settings:
        """
        The options of this backend.

        Raises:
            OptionError: an option is wrong. Not when the backend is built: the
                system check must get a chance to say so.
        """
        for message, hint in self.misplaced:
            raise OptionError(message, hint)
        return Settings.from_options(self.options, self.alias)

    @property
    def database(self) -> str:
        """The database alias of the tables: the option's, or the routers' choice."""
        if self.settings.database is not None:
            return self.settings.database
        _refuse_missing_app()
        from dayfly.models import Job

        return str(router.db_for_write(Job))

    def validate_task(self, task: Task[..., Any]) -> None:
        """Apply the rules of Django, and ALLOWED_TASKS."""
        super().validate_task(task)
        try:
            self.check_allowed(task.module_path)
        except OptionError:
            pass  # A wrong option must not break the import of a task; enqueueing raises it.

    def check_allowed(self, task_path: str) -> None:
        """
        Refuse a path that ALLOWED_TASKS does not name.

        Raises:
            TaskNotAllowed: also an InvalidTask.
        """
        patterns = self.settings.allowed_tasks
        if patterns is None or any(fnmatch.fnmatchcase(task_path, one) for one in patterns):
            return
        message = (
            f'Task {task_path} is not allowed by TASKS["{self.alias}"]: no pattern of'
            " ALLOWED_TASKS matches it. Add one, or use another backend for this task."
        )
        raise _TaskNotAllowed(message)

    def enqueue(  # type: ignore[override]  # the stubs want the call's own ParamSpec
        self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> TaskResult[..., Any]:
        """
        Insert a job, in the caller's transaction if there is one.

        Raises:
            ArgumentsNotJSON, ArgumentsTooLarge, InvalidTask: nothing was enqueued.
        """
        new, arguments = self._prepare(task, args, kwargs)
        result = results.of_new_job(task, self._add(new), arguments)
        task_enqueued.send(type(self), task_result=result)
        return result

    async def aenqueue(  # type: ignore[override]  # the stubs want the call's own ParamSpec
        self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> TaskResult[..., Any]:
        """See enqueue(). Only the INSERT runs in a thread, as Django's own ORM does."""
        new, arguments = self._prepare(task, args, kwargs)
        job = await sync_to_async(self._add, thread_sensitive=True)(new)
        result = results.of_new_job(task, job, arguments)
        await task_enqueued.asend(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult[..., Any]:
        """
        Read a job and its runs: two queries.

        Raises:
            TaskResultDoesNotExist: no such job in this backend.
            TaskNotFound: the code has no task under the job's path any more.
        """
        _refuse_missing_app()
        from dayfly.models import Job

        try:
            job_id = UUID(str(result_id))
        except ValueError as error:
            raise TaskResultDoesNotExist(result_id) from error
        jobs = Job.objects.using(self.database).select_related("worker")
        job = jobs.filter(id=job_id, backend_name=self.alias).first()
        if job is None:
            raise TaskResultDoesNotExist(result_id)
        return self.result_of(job, results.runs_of(job))

    async def aget_result(self, result_id: str) -> TaskResult[..., Any]:
        """See get_result()."""
        return await sync_to_async(self.get_result, thread_sensitive=True)(result_id)

    def result_of(self, job: Job, runs: Iterable[Run]) -> TaskResult[..., Any]:
        """Build the result of a job from its row and those of its runs, in order."""
        return results.of_job(self.load_task(job.task_path), job, runs)

    def load_task(self, task_path: str) -> Task[..., Any]:
        """
        Import the task that a row names by its path.

        Raises:
            TaskNotAllowed: before anything is imported.
            TaskNotFound: there is nothing under the path, or no task.
        """
        self.check_allowed(task_path)
        found = _import_path(task_path)
        # By its face, not by its class: the task may come from the backport.
        if not all(hasattr(found, name) for name in ("func", "using", "get_backend")):
            message = f"{task_path} is no task. Decorate it with @task."
            raise TaskNotFound(message)
        task: Task[..., Any] = found
        return task

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Give what the system check has to say about this alias."""
        from dayfly.checks import check_backend

        return list(check_backend(self))

    def _prepare(
        self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[NewJob, dict[str, Any]]:
        """Check a call and make a row of it. Touches no database."""
        _refuse_missing_app()
        from dayfly.queue import NewJob

        settings = self.settings  # Raises when an option is wrong, before anything else.
        self.validate_task(task)
        path = task.module_path
        _check_run_after(task)
        arguments, text = _arguments_to_json(path, args, kwargs)
        size = len(text)  # JSON here is ASCII: characters are bytes.
        if size > settings.max_arguments_bytes:
            message = (
                f"The arguments of {path} take {size} bytes as JSON, more than"
                f" {settings.max_arguments_bytes}. Pass an id instead of the data, or raise"
                f' MAX_ARGUMENTS_BYTES in TASKS["{self.alias}"]["OPTIONS"].'
            )
            raise ArgumentsTooLarge(message)
        new = NewJob(
            backend_name=self.alias,
            queue_name=task.queue_name,
            priority=int(task.priority),
            task_path=path,
            arguments=text,
            run_after=task.run_after,
        )
        return new, arguments

    def _add(self, new: NewJob) -> Job:
        """Insert the row, and wake the workers once it is committed."""
        from dayfly import queue

        using = self.database
        job = queue.add(new, using=using)
        connection = connections[using]
        # Django tells nobody of a commit that the caller makes by hand: workers find the job when
        # they look.
        is_told_of_commit = connection.in_atomic_block or connection.get_autocommit()
        if self.settings.notify and connection.vendor == "postgresql" and is_told_of_commit:
            # Not a partial: Django before 6.1 logs a failing hook by its __qualname__.
            def wake() -> None:
                self._wake(new.queue_name, using)

            # robust: a failing NOTIFY is logged by Django; the job is there all the same.
            transaction.on_commit(wake, using=using, robust=True)
        return job

    def _wake(self, queue_name: str, using: str) -> None:
        """
        Send a NOTIFY, unless one was sent a moment ago.

        PostgreSQL takes a global lock for each commit that notifies.
        """
        from dayfly import queue

        moment = time.monotonic()
        if moment - self._notified_at.get(queue_name, -1.0) < NOTIFY_PAUSE_SECONDS:
            return
        self._notified_at[queue_name] = moment
        queue.notify(queue_name, using=using)


def database_backends() -> list[DatabaseBackend]:
    """Give the backends in TASKS that are ours."""
    return [one for one in task_backends.all() if isinstance(one, DatabaseBackend)]


def _refuse_missing_app() -> None:
    """Say what to do before the import of the models says something about an app_label."""
    if not apps.is_installed("dayfly"):
        message = 'Add "dayfly" to INSTALLED_APPS, then run: python manage.py migrate.'
        raise ImproperlyConfigured(message)


def _check_run_after(task: Task[..., Any]) -> None:
    """
    Refuse a moment that another time zone cannot express.

    PostgreSQL would insert it, and nobody could read the row then.
    """
    if task.run_after is not None and task.run_after.year not in YEARS:
        message = (
            f"run_after of {task.module_path} is {task.run_after}, which is not in the years"
            f" {YEARS[0]} to {YEARS[-1]}. Leave it out for a task that is to run at once."
        )
        raise InvalidTask(message)


def _arguments_to_json(
    path: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Write the arguments of a call as JSON, and give them as they will arrive."""
    try:
        given = normalize_json({"args": list(args), "kwargs": dict(kwargs)})
        text = json.dumps(given, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        message = (
            f"The arguments of {path} cannot be written as JSON ({error}). Pass numbers,"
            " strings, booleans, None, lists and dictionaries with string keys."
        )
        raise ArgumentsNotJSON(message) from error
    # Not as they were given: JSON makes strings of keys that are numbers.
    return json.loads(text), text


def _import_path(task_path: str) -> Any:
    """Import "package.module.function", or "package.module.Class.function"."""
    parts = task_path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                continue  # Perhaps a class within a module; or nothing at all.
            raise _not_found(task_path, error) from error
        except Exception as error:
            # A module may fail in any way at all when it is imported.
            raise _not_found(task_path, error) from error
        try:
            for part in parts[cut:]:
                found = getattr(found, part)
        except AttributeError as error:
            raise _not_found(task_path, error) from error
        return found
    raise _not_found(task_path, None)


def _not_found(task_path: str, cause: BaseException | None) -> TaskNotFound:
    """Say that a path leads nowhere."""
    why = f" ({type(cause).__name__}: {cause})" if cause else ""
    return TaskNotFound(
        f"There is no task {task_path}{why}. Was it moved or renamed, or is its app missing"
        " from the settings in use?"
    )
