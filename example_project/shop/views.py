"""The HTTP endpoint that the shop's own task calls."""

from __future__ import annotations

import json

from django.conf import settings
from django.http import HttpRequest, JsonResponse


def exchange_rates(request: HttpRequest) -> JsonResponse:
    """Answer with what a bank would: how much of each currency one euro buys."""
    rates = json.loads((settings.DATA_DIR / "exchange_rates.json").read_text())
    return JsonResponse(rates)
