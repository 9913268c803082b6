"""
The shop's work in the background. Each of these runs in a child that dies with it.

This module is imported by the web process, which enqueues, and by every child, so it is
light: a heavy library is imported by the one module that uses it, inside the task. The
import then happens in the child of that task, and its memory goes when the child goes.
"""

from __future__ import annotations

import os
import signal
import time
from decimal import Decimal, InvalidOperation

try:
    from django.tasks import task
except ImportError:  # Django 5.2 has its tasks from the backport
    from django_tasks import task


class PaymentRefused(Exception):
    """The bank said no."""


#: What leak() never lets go of.
kept_for_ever: list[bytearray] = []


@task(priority=10)
def send_order_mail(order_number: int) -> str:
    """Send the customer the invoice. Return the address that it went to."""
    from shop import mails

    return mails.send(order_number)


@task
def make_invoice(order_number: int) -> str:
    """Write the invoice as PDF. Return its name."""
    from shop import invoices

    return invoices.write(order_number).name


@task
def sales_report() -> dict[str, object]:
    """Add up two years of sales by month and category. Return the totals."""
    from shop import reports

    return reports.write()


@task
def make_thumbnails() -> list[str]:
    """Make a small picture of each product. Return their names."""
    from shop import pictures

    return [path.name for path in pictures.write_thumbnails()]


@task
def fetch_exchange_rates() -> dict[str, float]:
    """Ask for today's rates over HTTP, and keep them."""
    from shop import rates

    return rates.fetch()


@task
def leak(megabytes: int = 30) -> int:
    """Keep memory that is never given back, as a cache without a bound does."""
    kept_for_ever.append(bytearray(b"x") * (megabytes * 1024 * 1024))
    return sum(len(each) for each in kept_for_ever)


@task
def raises(price: str = "12,50 EUR") -> str:
    """Fail as tasks do: an error of the business, caused by one of the language."""
    try:
        return str(Decimal(price))
    except InvalidOperation as error:
        message = f"The payment of {price!r} was refused: it is not an amount."
        raise PaymentRefused(message) from error


@task
def is_killed() -> None:
    """Die without a word, as a child does that the kernel kills when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


@task
def runs_too_long() -> None:
    """Wait for something that never comes: TIMEOUT_SECONDS in the settings ends it."""
    while True:
        time.sleep(0.2)
