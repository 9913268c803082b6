"""
The admin: which rows it shows, found without reading all of them.

Tables of jobs and runs grow; Django's own filters ask for all distinct values of a
column, and its search compares ids as texts: both read every row, for each page.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db import Error, connections, transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from dayfly.backend import DatabaseBackend, database_backends
from dayfly.conf import problems
from dayfly.models import Run
from dayfly.queue.names import ready_queues

#: How many queues with jobs that wait the filter offers.
MOST_QUEUES = 50


def database_of_rows() -> str | None:
    """Give the database of the rows where all our backends have theirs in one; None asks the routers."""
    databases = {backend.database for backend in _backends()}
    return databases.pop() if len(databases) == 1 else None


def rows(shown: Any, request: HttpRequest) -> QuerySet[Any]:
    """Give all rows of what is shown, from where the queue keeps them: the option DATABASE is no router."""
    queryset = shown.model._default_manager.using(database_of_rows())
    ordering = shown.get_ordering(request)
    return queryset.order_by(*ordering) if ordering else queryset  # type: ignore[no-any-return]


def found(
    shown: Any, request: HttpRequest, queryset: QuerySet[Any], search_term: str
) -> tuple[QuerySet[Any], bool]:
    """
    Search: an id by the keys alone, as a comparison of texts would read every row.

    A run is found by its job's, too: that is the id in the log.
    """
    try:
        wanted = UUID(search_term.strip())
    except ValueError:
        return admin.ModelAdmin.get_search_results(shown, request, queryset, search_term)
    where = Q(pk=wanted)
    if shown.model is Run:
        where |= Q(job_id=wanted)
    return queryset.filter(where), False


class BackendFilter(admin.SimpleListFilter):
    """The entries of TASKS: to ask the rows for their backends would read all of them."""

    title = "backend"
    parameter_name = "backend_name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(backend.alias, backend.alias) for backend in _backends()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(backend_name=self.value()) if self.value() else queryset


class QueueFilter(admin.SimpleListFilter):
    """The queues that TASKS names, and those with jobs that wait; not all that there ever were."""

    title = "queue"
    parameter_name = "queue_name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = {name for name in (self.value(),) if name}
        for backend in _backends():
            names |= backend.queues | _waiting_queues(backend)
        return [(name, name) for name in sorted(names)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        name = self.value()
        if name and "\0" in name:  # PostgreSQL takes none in a text
            return queryset.none()
        return queryset.filter(queue_name=name) if name else queryset


def _waiting_queues(backend: DatabaseBackend) -> set[str]:
    """Ask a backend's database, which may be another than that of the rows: away, misspelt, without tables."""
    if backend.database not in connections:
        return set()
    try:
        with transaction.atomic(
            using=backend.database
        ):  # a savepoint, where a request has a transaction
            connection = connections[backend.database]
            return set(ready_queues(connection, backend.alias, limit=MOST_QUEUES))
    except Error:
        return set()


class StateFilter(admin.SimpleListFilter):
    """Which workers live. By this machine's clock, leases go by the database's."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(each, each) for each in ("works", "silent", "stopped", "lost")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        open_ended = queryset.filter(lost_at=None, stopped_at=None)
        now = timezone.now()
        match self.value():
            case "works":
                return open_ended.filter(lease_expires_at__gt=now)
            case "silent":
                return open_ended.filter(lease_expires_at__lte=now)
            case "stopped":
                return queryset.filter(lost_at=None).exclude(stopped_at=None)
            case "lost":
                return queryset.exclude(lost_at=None)
            case _:
                return queryset


def _backends() -> list[DatabaseBackend]:
    """Give our backends, but for those with wrong options: the system check tells of them."""
    return [backend for backend in database_backends() if not problems(backend.options)]
