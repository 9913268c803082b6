"""A task in a module that imports a model, as most do."""

from __future__ import annotations

from django.contrib.auth.models import Group

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task


@task
def counts_groups():
    return Group.objects.count()
