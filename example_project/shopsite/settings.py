"""
The shop's settings, as a web process needs them: admin, sessions, templates, the lot.

The worker runs on `worker_settings`, which takes most of it away again.
"""

from __future__ import annotations

import os
from pathlib import Path

import django

BASE_DIR = Path(__file__).resolve().parent.parent
#: The small input that is shipped with the example.
DATA_DIR = BASE_DIR / "data"
#: Whatever the example writes: database, mails, invoices, reports, thumbnails.
VAR_DIR = Path(os.environ.get("SHOP_VAR_DIR", BASE_DIR / "var"))
VAR_DIR.mkdir(parents=True, exist_ok=True)

DEBUG = True
SECRET_KEY = "only for the example"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "dayfly",
    "shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "shopsite.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
STATIC_URL = "static/"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": VAR_DIR / "shop.sqlite3",
        "OPTIONS": {
            # Children and worker write to one file: wait for each other, and let readers read on.
            "timeout": 30,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    },
}

TASKS = {
    "default": {
        "BACKEND": "dayfly.backend.DatabaseBackend",
        "OPTIONS": {
            # No task of this shop has any business running longer.
            "TIMEOUT_SECONDS": 8,
        },
    },
}

# Mails become files under var/mails/. Django 6.1 has MAILERS, and warns about the older name.
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "shop.mailbox.EmailBackend"}}
else:
    EMAIL_BACKEND = "shop.mailbox.EmailBackend"
DEFAULT_FROM_EMAIL = "The Small Shop <shop@example.com>"

#: Where fetch_exchange_rates asks: a view of this project, wherever it is being served.
EXCHANGE_RATES_URL = os.environ.get(
    "SHOP_EXCHANGE_RATES_URL", "http://127.0.0.1:8000/exchange-rates/"
)
