"""
In the virtual machine, as PID 1: runs the tests, says how they ended, and switches the machine off.

What it prints goes to the second serial port, of which run.py has the other end.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import termios
import tty
from pathlib import Path
from typing import Any

TERMINAL = "/dev/ttyS1"
#: What stands before the exit status, on a line of its own.
STATUS = "The guest's exit status: "
_RB_POWER_OFF = 0x4321FEDC


def main(plan: dict[str, Any]) -> int:
    """Run the command of *plan*; return its exit status."""
    # When memory runs out, the kernel takes what the tests have started.
    Path("/proc/self/oom_score_adj").write_text("-1000")
    tests = subprocess.Popen(plan["command"], cwd=plan["directory"], env=plan["environment"])
    while True:
        # As PID 1 also for those that nobody else waits for.
        pid, status = os.wait()
        if pid == tests.pid:
            tests.returncode = os.waitstatus_to_exitcode(status)
            return tests.returncode


def take_terminal() -> None:
    """Make the serial port our input and output, and that of all that we start."""
    fd = os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(fd)
    for standard in (0, 1, 2):
        os.dup2(fd, standard)


def switch_off() -> None:
    """End the machine, once all is sent. Source: reboot(2)."""
    termios.tcdrain(1)
    os.sync()
    ctypes.CDLL(None).reboot(ctypes.c_uint(_RB_POWER_OFF))


if __name__ == "__main__":
    take_terminal()
    try:
        print(f"\n{STATUS}{main(json.loads(Path(sys.argv[1]).read_text()))}", flush=True)
    finally:
        switch_off()
