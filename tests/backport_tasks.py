"""What a released package does that knows only the backport. Imported by tests alone."""

from __future__ import annotations

from django_tasks import task


@task
def greet(name):
    return f"Hello {name}"
