"""
Lean settings: what the worker needs to look after jobs, and nothing of the shop itself.

    python manage.py runworker --settings=shopsite.worker_settings

Tasks still see the whole shop: their children are forked from a template, a process of its
own that has loaded `TEMPLATE_SETTINGS`. The worker stays as small as Django and dayfly are.
Database and TASKS stay as they are: they are data, and both sides use them.
"""

from __future__ import annotations

from .settings import *  # noqa: F403 - everything, and then less
from .settings import TASKS

# The shop, its admin, its users and sessions are the template's and the web process's.
INSTALLED_APPS = ["dayfly"]

# No request ever arrives here.
MIDDLEWARE = []
TEMPLATES = []
ROOT_URLCONF = "shopsite.worker_urls"

TASKS["default"]["OPTIONS"] |= {
    # What tasks see: all of it.
    "TEMPLATE_SETTINGS": "shopsite.settings",
    # Loaded once, and shared by all children: what most tasks import anyway. The libraries that
    # one task needs now and then (pandas, Pillow) are still imported by the child that runs it.
    "PRELOAD": ["shop.mails", "shop.invoices"],
}
