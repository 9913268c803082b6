"""Tasks for the tests of the app. What they do does not matter here, only that they are tasks."""

from __future__ import annotations

from tests import calls
from tests.frameworks import task


@task
def add(left, right=0):
    return left + right


@task(priority=7, queue_name="mail")
def send(to):
    return to


@task(takes_context=True)
def attempt(context):
    return context.attempt


@task
async def wait():
    return "waited"


class Holder:
    @staticmethod
    @task
    def inner():
        return "inner"


not_a_task = 42


@task
def noop():
    return None


@task
def fails():
    raise ValueError("on purpose")


@task
def fails_sealed():
    calls.raises_sealed()
