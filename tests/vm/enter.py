"""
Start a program in a cgroup: `enter.py CGROUP PROGRAM ARGUMENT...`, as a service manager does.

Its tests are in a process that the kernel spares when memory runs out; the program is not.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

Path(sys.argv[1], "cgroup.procs").write_text("0")
Path("/proc/self/oom_score_adj").write_text("0")
os.execvp(sys.argv[2], sys.argv[2:])
