"""
The example from end to end: migrate, enqueue, work until the queue is empty, print the runs.

    python manage.py demo
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from shop import printout, tasks, webserver
from shop.sample import make_orders


class Command(BaseCommand):
    help = "Enqueue the shop's tasks, run a worker until the queue is empty, and show each run."

    def handle(self, *args: Any, **options: Any) -> None:
        self.say("Migrating the database ...")
        call_command("migrate", verbosity=0)
        with webserver.running() as url:
            job_ids = enqueue()
            self.say(f"Enqueued {len(job_ids)} jobs. The worker starts:")
            self.say("")
            run_worker(url)
        runs = printout.runs_of(job_ids)
        self.say("")
        self.say(printout.table(runs))
        self.say("")
        self.say(printout.explanation(runs))
        surprises = printout.surprises(runs, job_ids)
        if surprises:
            raise CommandError("Not every run ended as it should:\n" + "\n".join(surprises))

    def say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()  # before what the worker writes


def enqueue() -> list[str]:
    """Put all of the shop's work in the queue, and return the ids of the jobs."""
    results = []
    for order in make_orders():
        results.append(tasks.make_invoice.enqueue(order.number))
        results.append(tasks.send_order_mail.enqueue(order.number))
    for task in (
        tasks.sales_report,
        tasks.make_thumbnails,
        tasks.fetch_exchange_rates,
        tasks.leak,
        tasks.raises,
        tasks.is_killed,
        tasks.runs_too_long,
        # Once more, after the memory was leaked: this child starts as small as the first.
        tasks.leak,
    ):
        results.append(task.enqueue())
    return [result.id for result in results]


def run_worker(exchange_rates_url: str) -> None:
    """Start the worker as a deployment does, on its lean settings, and wait until it is done."""
    command = [sys.executable, "manage.py", "runworker", "--batch"]
    command.append("--settings=shopsite.worker_settings")
    variables = {**os.environ, "SHOP_EXCHANGE_RATES_URL": exchange_rates_url}
    ended = subprocess.run(command, cwd=settings.BASE_DIR, env=variables, check=False)
    if ended.returncode != 0:
        message = f"The worker ended with exit code {ended.returncode}: see its messages above."
        raise CommandError(message)
