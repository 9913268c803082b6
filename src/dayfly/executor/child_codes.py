"""Both sides: plain data. The signal and the exit codes by which parent and child understand each other."""

from __future__ import annotations

import signal

#: The child's start failed, before it could run anything (EX_OSERR).
EXIT_START_FAILED = 71
#: The report could not be sent: the code that ran closed or replaced our socket (EX_IOERR).
EXIT_CANNOT_REPORT = 74

#: By which the parent tells a child that the time of its call is over. A real-time signal, which
#: neither programs nor libraries are known to use, and not SIGALRM, which tasks do.
SOFT_SIGNAL = int(getattr(signal, "SIGRTMAX", signal.SIGUSR2 + 1)) - 1
