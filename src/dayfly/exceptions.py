"""
What can go wrong, one class per thing that a caller can act on. Imports no Django.

The last eight are never raised: a run that ended without an exception names one of
them in the errors of its result, so that callers can tell the endings apart.
"""

from __future__ import annotations


class DayflyError(Exception):
    """The base of everything that Dayfly raises by itself."""


class ArgumentsTooLarge(DayflyError):
    """The arguments of a call are larger than MAX_ARGUMENTS_BYTES; nothing was enqueued."""


class ArgumentsNotJSON(DayflyError, TypeError):
    """The arguments of a call cannot be written as JSON; nothing was enqueued."""


class ResultTooLarge(DayflyError):
    """The task returned a value that is larger than MAX_RESULT_BYTES."""


class ResultNotJSON(DayflyError, TypeError):
    """The task returned a value that cannot be written as JSON."""


class TaskNotAllowed(DayflyError):
    """The path of the task matches none of the patterns in ALLOWED_TASKS."""


class TaskNotFound(DayflyError):
    """The path of a job leads to no task: it was moved, renamed, or its app is not installed."""


class ResultRefused(DayflyError):
    """The database refused to store what the task returned."""


class ChildExited(DayflyError):
    """The child left without a report: the task ended its own process."""


class ChildKilled(DayflyError):
    """A signal from outside (or a crash) ended the child."""


class TimedOut(DayflyError):
    """The run took longer than its time limit and was ended."""


class OverMemory(DayflyError):
    """The run held more memory than it may, and was killed."""


class Cancelled(DayflyError):
    """The run was cancelled."""


class WorkerStopped(DayflyError):
    """The worker stopped and ended the run; the job went back to its queue."""


class WorkerLost(DayflyError):
    """The worker that held the job died or went silent."""
