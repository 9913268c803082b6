"""Settings with only what a worker needs: no admin, no templates, no middleware, no URL conf."""

from __future__ import annotations

from tests.lifecycle.settings import DATABASES, SECRET_KEY, TASKS, USE_TZ  # noqa: F401

INSTALLED_APPS = ["dayfly"]
