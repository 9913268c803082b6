"""A module that tells when it is imported."""

from __future__ import annotations

import os
from pathlib import Path

Path(os.environ["DAYFLY_TEST_MARKS"], "forbidden-was-imported").touch()
