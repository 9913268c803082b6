"""The same work as tasks of Django."""

from __future__ import annotations

from bench_project import work

try:
    from django.tasks import task
except ImportError:  # Django 5.2
    from django_tasks import task


@task
def noop(number: int) -> None:
    """Do nothing but say when."""
    work.noop(number)


@task
def leak(number: int) -> None:
    """Keep one megabyte for ever."""
    work.leak(number)
