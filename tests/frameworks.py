"""The task decorator of the framework in use, for what the tests share."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

PACKAGE = "django.tasks" if find_spec("django.tasks") else "django_tasks"
task = import_module(PACKAGE).task
