"""
Columns that mean the same on every database, whatever the project has set there.

SQLite, MariaDB and MySQL keep no time zones: there Django stores moments in the zone of
`DATABASES[...]["TIME_ZONE"]`, or of `TIME_ZONE` without `USE_TZ`. Where that has summer
time, an hour comes twice and another never, and who compares moments takes a live worker
for dead. So ours are stored in UTC. What is read and given is as everywhere in Django.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone


def instant(value: datetime) -> datetime:
    """Give a moment in UTC. A naive one is of TIME_ZONE, as everywhere in Django."""
    if timezone.is_naive(value):
        value = value.replace(tzinfo=timezone.get_default_timezone())
    return value.astimezone(UTC)


def to_stored(connection: BaseDatabaseWrapper, value: datetime) -> Any:
    """Turn a moment into a parameter."""
    moment = instant(value)
    if connection.vendor != "postgresql":  # it alone has a type for moments
        moment = moment.replace(tzinfo=None)
    return connection.ops.adapt_datetimefield_value(moment)


def from_stored(connection: BaseDatabaseWrapper, value: datetime) -> datetime:
    """Turn what the database gave for a moment, with whatever zone Django put to it, into the moment."""
    if connection.vendor == "postgresql":
        return value
    moment = value.replace(tzinfo=UTC)
    return moment if settings.USE_TZ else timezone.make_naive(moment)


class MomentField(models.DateTimeField):  # type: ignore[type-arg]
    """A DateTimeField that is stored in UTC."""

    def get_db_prep_value(
        self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False
    ) -> Any:
        if not prepared:
            value = self.get_prep_value(value)
        if isinstance(value, datetime):
            return to_stored(connection, value)
        return super().get_db_prep_value(value, connection, prepared=True)

    def from_db_value(
        self, value: datetime | None, expression: Any, connection: BaseDatabaseWrapper
    ) -> datetime | None:
        return None if value is None else from_stored(connection, value)


class NameField(models.CharField):  # type: ignore[type-arg]
    """A CharField in which "mail" and "Mail" are two, also on MariaDB and MySQL."""

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            # By a collation, not in each comparison, so that the indexes serve.
            return {**parameters, "collation": "utf8mb4_bin"}
        return parameters
