#!/usr/bin/env python3
"""Run a command of the benchmark's Django project. The harness sets the environment it needs."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench_project.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
