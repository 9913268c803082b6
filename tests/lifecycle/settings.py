"""Settings of the workers that tests start: those of the tests, on the database that pytest made."""

from __future__ import annotations

import faulthandler
import json
import os
import signal

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, TASKS

DATABASES["default"]["NAME"] = os.environ["DAYFLY_TEST_DATABASE_NAME"]
if "DAYFLY_TEST_POOL" in os.environ:
    DATABASES["default"]["OPTIONS"]["pool"] = True
    DATABASES["default"]["CONN_MAX_AGE"] = 0
TASKS["default"]["QUEUES"] = json.loads(os.environ.get("DAYFLY_TEST_QUEUES", "[]"))
DATABASES["default"].update(json.loads(os.environ.get("DAYFLY_TEST_DATABASE_CHANGES", "{}")))
TASKS["default"]["OPTIONS"] = json.loads(os.environ.get("DAYFLY_TEST_OPTIONS", "{}"))

# A worker that hangs in a test is asked where.
faulthandler.register(signal.SIGUSR2)
