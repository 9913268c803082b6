"""The URL conf of the lean settings: the worker serves nothing, and no task reverses a URL."""

from __future__ import annotations

urlpatterns = []
