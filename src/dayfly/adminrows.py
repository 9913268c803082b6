"""
The admin: which rows it shows, found without reading all of them.

Tables of jobs and runs grow; Django's own filters ask for all distinct values of a
column, and its search compares ids as texts: both read every row, for each page.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db import connections
from django.db.models import QuerySet
from django.http import HttpRequest

from dayfly.backend import DatabaseBackend, database_backends
from dayfly.conf import problems
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
    """Search: an id by the primary key alone, as a comparison of texts would read every row."""
    try:
        return queryset.filter(pk=UUID(search_term.strip())), False
    except ValueError:
        return admin.ModelAdmin.get_search_results(shown, request, queryset, search_term)


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
            names |= backend.queues
            connection = connections[backend.database]
            names |= set(ready_queues(connection, backend.alias, limit=MOST_QUEUES))
        return [(name, name) for name in sorted(names)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(queue_name=self.value()) if self.value() else queryset


def _backends() -> list[DatabaseBackend]:
    """Give our backends, but for those with wrong options: the system check tells of them."""
    return [backend for backend in database_backends() if not problems(backend.options)]
