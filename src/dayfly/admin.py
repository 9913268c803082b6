"""
The admin: what happened to jobs, read-only.

Nothing can be added, changed or deleted here: rows belong to the queue, and a
change beside it could run a job twice. Everything shown is escaped: paths,
tracebacks and output come from tasks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.forms.models import BaseInlineFormSet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe

from dayfly.adminrows import BackendFilter, QueueFilter, StateFilter, found, rows
from dayfly.models import Job, Run, Worker
from dayfly.units import MEGABYTE

Row = TypeVar("Row", bound=Model)

if TYPE_CHECKING:
    Inline = admin.StackedInline[Run, Job]
    JobBase = admin.ModelAdmin[Job]
    RunBase = admin.ModelAdmin[Run]
    WorkerBase = admin.ModelAdmin[Worker]
else:  # Only the stubs know type arguments.
    Inline = admin.StackedInline
    JobBase = RunBase = WorkerBase = admin.ModelAdmin

UNKNOWN = "-"
#: Long texts that are shown as they were written, and what is JSON.
TEXTS = frozenset({"traceback", "output"})
JSON_TEXTS = frozenset({"arguments", "return_value"})
#: However long a line of it is, it stays on the page.
PRE = (
    '<pre style="white-space: pre-wrap; overflow-wrap: anywhere; max-height: 30em; overflow: auto;'
    ' margin: 0">{}</pre>'
)
#: How many runs the page of a job shows; the list of runs has all.
SHOWN_RUNS = 20
#: Figures and texts of a run on the page of its job; its own page has everything.
INLINE_FIGURES = (
    "run_seconds",
    "queue_wait_seconds",
    "parent_rss_before_fork_bytes",
    "child_rss_start_bytes",
    "child_rss_end_bytes",
    "child_peak_rss_bytes",
    "parent_rss_after_join_bytes",
)
#: How much of the sentence about a run a list shows.
SENTENCE_CHARACTERS = 90
#: More than a browser likes to show in one page; the row has the whole.
SHOWN_CHARACTERS = 100_000


def human_bytes(value: int | None) -> str:
    """Write a size for a person, as the log does: 1 MB is 1,000,000 bytes. Unknown is not zero."""
    if value is None:
        return UNKNOWN
    if abs(value) < 1_000:
        return f"{value} B"
    return (
        f"{value / MEGABYTE:,.1f} MB" if abs(value) >= MEGABYTE / 10 else f"{value / 1_000:.1f} kB"
    )


def human_seconds(value: float | None) -> str:
    """Write a duration for a person, with its unit."""
    if value is None:
        return UNKNOWN
    if abs(value) < 1:
        return f"{value * 1000:.1f} ms"
    return f"{value:.2f} s" if abs(value) < 120 else str(timedelta(seconds=round(value)))


def preformatted(value: str | None) -> str:
    """Show a text as it was written, escaped; of a very long one the end, where tracebacks say what happened."""
    if not value:
        return UNKNOWN
    if len(value) > SHOWN_CHARACTERS:
        value = f"... (the last {SHOWN_CHARACTERS} characters)\n{value[-SHOWN_CHARACTERS:]}"
    return format_html(PRE, value)


def as_json(value: str | None) -> str:
    """Show JSON to be read: indented, with the letters that escapes stand for; of much the beginning."""
    if not value:
        return UNKNOWN
    with suppress(ValueError, RecursionError):
        if len(value) <= SHOWN_CHARACTERS:
            value = json.dumps(json.loads(value), indent=2, ensure_ascii=False)
    if len(value) > SHOWN_CHARACTERS:
        value = f"{value[:SHOWN_CHARACTERS]}\n... (of {len(value)} characters)"
    return format_html(PRE, value.encode("utf-8", "backslashreplace").decode())


def one_line(full: object, short: object) -> str:
    """Show something short that does not wrap, and all of it to whoever points there."""
    style = "white-space: nowrap; max-width: 14em; overflow: hidden; text-overflow: ellipsis"
    return format_html(
        '<span style="{}; display: inline-block" title="{}">{}</span>', style, full, short
    )


def moment(name: str, words: str) -> Callable[[Any], str]:
    """Give what shows a moment in a list: to the second, and the year to whoever points there."""

    @admin.display(description=words, ordering=name)
    def shown(row: Any) -> str:
        value: datetime | None = getattr(row, name)
        if value is None:
            return UNKNOWN
        if timezone.is_aware(value):
            value = timezone.localtime(value)
        return one_line(value, f"{value:%m-%d %H:%M:%S}")

    shown.__name__ = f"{name}_in_short"
    return shown


def column(name: str, words: str, *, ordering: str | None = None) -> Callable[[Any], str]:
    """Give what shows a field in a list, under a short heading and on one line."""

    @admin.display(description=words, ordering=ordering or name)
    def shown(row: Any) -> str:
        value = getattr(row, name)
        if name.endswith("_bytes"):
            return one_line(value, human_bytes(value))
        if name.endswith("_seconds"):
            return one_line(value, human_seconds(value))
        return one_line(value, value)

    shown.__name__ = f"{name}_column"
    return shown


def tail_of(name: str, words: str) -> Callable[[Any], str]:
    """Give what shows an id by its end: the beginning is the time, and alike for neighbours."""

    @admin.display(description=words, ordering=name)
    def shown(row: Any) -> str:
        value = getattr(row, name)
        return one_line(value, f"…{str(value)[-8:]}")

    shown.__name__ = f"{name}_tail"
    return shown


@admin.display(description="task", ordering="task_path")
def task(row: Any) -> str:
    """Show the path of a task; a long one may be broken after its dots."""
    path = format_html_join(mark_safe("<wbr>"), "{}", ((part,) for part in _parts(row.task_path)))
    style = "display: inline-block; min-width: 10em; max-width: 24em; overflow-wrap: anywhere"
    return format_html('<span style="{}">{}</span>', style, path)


def _parts(path: str) -> list[str]:
    *packages, name = path.split(".")
    return [*(f"{package}." for package in packages), name]


@admin.display(description="why")
def sentence(run: Run) -> str:
    """Show the beginning of the sentence about a run, and all of it to whoever points there."""
    text = run.message
    if len(text) > SENTENCE_CHARACTERS:
        text = f"{text[:SENTENCE_CHARACTERS].rpartition(' ')[0]} …"
    return format_html('<span title="{}">{}</span>', run.message, text)


@admin.display(description="state")
def state(worker: Worker) -> str:
    """Say in a word whether a worker works. By this machine's clock, leases go by the database's."""
    if worker.lost_at is not None:
        return "lost"
    if worker.stopped_at is not None:
        return "stopped"
    return "works" if worker.lease_expires_at > timezone.now() else "silent"


def readable(model: type[Model], name: str) -> str | Callable[[Any], str]:
    """Give what shows a field of *model*: a size, a duration, a text, or the field itself."""
    show: Callable[[Any], str]
    if name.endswith("_bytes"):
        show = human_bytes
    elif name.endswith("_seconds"):
        show = human_seconds
    elif name in TEXTS:
        show = preformatted
    elif name in JSON_TEXTS:
        show = as_json
    else:
        return name

    @admin.display(
        description=_without_unit(str(model._meta.get_field(name).verbose_name)),  # type: ignore[union-attr]
        ordering=None if name in TEXTS | JSON_TEXTS else name,
    )
    def shown(row: Any) -> str:
        return show(getattr(row, name))

    # Django tells the columns of a list apart by this.
    shown.__name__ = f"{name}_shown"
    return shown


def _without_unit(label: str) -> str:
    """The figure has its unit beside it."""
    return label.removesuffix(" bytes").removesuffix(" seconds").replace("rss", "RSS")


def never(*args: Any, **kwargs: Any) -> bool:
    """Deny a permission to everybody, superusers included."""
    return False


def all_fields(model: type[Model], *first: str) -> list[Any]:
    """Give every field of *model*, in a form for people, those named *first* on top."""
    names = [field.name for field in model._meta.concrete_fields if field.name not in first]
    return [readable(model, name) for name in (*first, *names)]


def is_list(request: HttpRequest) -> bool:
    """Tell whether a list is asked for, and not a page."""
    match = request.resolver_match
    return match is not None and (match.url_name or "").endswith("_changelist")


def run_fields() -> tuple[Any, ...]:
    """Give what a job's page shows of each run."""
    plain = ("attempt", "outcome", "message", "worker_name", "child_pid", "started_at")
    return (*plain, *(readable(Run, name) for name in INLINE_FIGURES))


class LastRuns(BaseInlineFormSet[Run, Job, Any] if TYPE_CHECKING else BaseInlineFormSet):  # type: ignore[misc]
    """A job that was stopped at each deployment may have hundreds of runs."""

    def get_queryset(self) -> QuerySet[Run]:
        """Give the last ones, without their long texts; the same object each time, as it is asked often."""
        if not hasattr(self, "_last"):
            runs: QuerySet[Run] = super().get_queryset()
            self._last = runs.defer("traceback", "output").order_by("-epoch")[:SHOWN_RUNS]
        return self._last


class RunInline(Inline):
    """The runs of a job, the last one on top; a run's own page has its traceback and output."""

    has_add_permission = has_change_permission = has_delete_permission = never
    get_queryset = rows
    formset = LastRuns

    model = Run
    extra = 0
    can_delete = False
    show_change_link = True
    ordering = ("-epoch",)
    verbose_name_plural = f"the last {SHOWN_RUNS} runs, the last first"
    fields = readonly_fields = run_fields()


@admin.register(Job)
class JobAdmin(JobBase):
    has_add_permission = has_change_permission = has_delete_permission = never
    get_search_results = found
    search_help_text = "The id of a job, or the beginning of a task's path"
    list_display = (
        task,
        tail_of("id", "id"),
        "status",
        "attempts",
        moment("enqueued_at", "enqueued"),
        moment("started_at", "started"),
        moment("finished_at", "finished"),
        column("queue_name", "queue"),
        "priority",
    )
    list_filter = ("status", BackendFilter, QueueFilter)
    search_fields = ("task_path__startswith",)
    # By id is by time, and the one order that a million rows can be paged in.
    ordering = ("-id",)
    show_full_result_count = False
    list_per_page = 50
    list_select_related = False
    inlines = (RunInline,)
    fields = readonly_fields = all_fields(
        Job, "task_path", "status", "arguments", "return_value", "attempts", "worker"
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        """Leave the long texts of a list where they are."""
        queryset: QuerySet[Job] = rows(self, request)
        return queryset.defer("arguments", "return_value") if is_list(request) else queryset

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Job | None:
        """Read the worker with the job: the page shows its name."""
        queryset = self.get_queryset(request).select_related("worker")
        return _get(queryset, object_id)


@admin.register(Run)
class RunAdmin(RunBase):
    has_add_permission = has_change_permission = has_delete_permission = never
    get_search_results = found
    search_help_text = "The id of a run or of its job, or the beginning of a task's path"
    list_display = (
        task,
        moment("started_at", "started"),
        column("outcome", "outcome"),
        sentence,
        column("run_seconds", "took"),
        column("child_peak_rss_bytes", "peak RSS"),
        tail_of("job_id", "job"),
        "attempt",
    )
    list_filter = ("outcome",)
    search_fields = ("task_path__startswith",)
    ordering = ("-id",)
    show_full_result_count = False
    list_per_page = 50
    list_select_related = False
    fields = readonly_fields = all_fields(
        Run, "task_path", "outcome", "message", "traceback", "output", "job", "attempt",
        "run_seconds", "child_peak_rss_bytes", "worker_name",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        """Leave the long texts of a list where they are."""
        queryset: QuerySet[Run] = rows(self, request)
        return queryset.defer("traceback", "output") if is_list(request) else queryset

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Run | None:
        """Read job and worker with the run: the page shows their names."""
        queryset = self.get_queryset(request).select_related("job", "worker")
        return _get(queryset, object_id)


@admin.register(Worker)
class WorkerAdmin(WorkerBase):
    has_add_permission = has_change_permission = has_delete_permission = never
    get_queryset = rows
    get_search_results = found
    list_display = (
        column("name", "worker"),
        state,
        column("queues", "queues"),
        "concurrency",
        column("rss_bytes", "RSS"),
        column("children_pss_bytes", "PSS of children"),
        moment("heartbeat_at", "heartbeat"),
        moment("started_at", "started"),
        column("pid", "pid"),
    )
    list_filter = (BackendFilter, StateFilter)
    search_fields = ("name", "host")
    ordering = ("-id",)
    show_full_result_count = False
    list_per_page = 50
    fields = readonly_fields = all_fields(Worker)


def _get(queryset: QuerySet[Row], object_id: str) -> Row | None:
    """Find a row by what stands in the URL, which may be anything."""
    try:
        return queryset.filter(pk=queryset.model._meta.pk.to_python(object_id)).first()
    except ValidationError:
        return None
