"""Tasks that end in the middle of a transaction."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group
from django.db import connection, transaction

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task

kept: list[Any] = []


@task
def leaves_what_it_began_by_hand():
    with connection.cursor() as cursor:
        cursor.execute("BEGIN IMMEDIATE" if connection.vendor == "sqlite" else "BEGIN")
    Group.objects.create(name="by hand")
    raise ValueError("between BEGIN and COMMIT")


@task
def leaves_autocommit_off():
    connection.set_autocommit(False)
    Group.objects.create(name="autocommit")
    return "done"


@task
def leaves_a_block_open():
    block = transaction.atomic()
    block.__enter__()
    kept.append(block)
    Group.objects.create(name="block")
    return "done"


@task
def commits():
    with transaction.atomic():
        Group.objects.create(name="committed")
    return [connection.in_atomic_block, connection.get_autocommit()]
