"""The pages of the shop: the admin, and the rates that a task fetches."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from shop.views import exchange_rates

urlpatterns = [
    path("admin/", admin.site.urls),
    path("exchange-rates/", exchange_rates),
]
