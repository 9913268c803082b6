"""From the options of a worker to its executor."""

from __future__ import annotations

from dayfly.conf import Settings
from dayfly.worker import launching
from dayfly.worker.options import WorkerOptions


def test_limits_of_a_template_are_passed_on():
    options = {"TEMPLATE_MAX_AGE_SECONDS": 3600, "TEMPLATE_MAX_GROWTH_BYTES": 50_000_000}
    settings = Settings.from_options(options, "default")

    source = launching._source(WorkerOptions(settings=settings, launcher="template"))

    assert source.max_age_seconds == 3600
    assert source.max_growth_bytes == 50_000_000


def test_template_is_not_replaced_by_default():
    source = launching._source(WorkerOptions(settings=Settings(), launcher="template"))

    assert (source.max_age_seconds, source.max_growth_bytes) == (None, None)
