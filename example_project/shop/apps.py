"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """What INSTALLED_APPS names as "shop"."""

    name = "shop"
