"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class DayflyConfig(AppConfig):
    """What INSTALLED_APPS names as "dayfly"."""

    name = "dayfly"
    label = "dayfly"
    verbose_name = "Dayfly"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from dayfly import checks  # noqa: F401 - registers the checks
