"""Both sides: plain data. What the executor refuses, and why."""

from __future__ import annotations

from pickle import PicklingError


class ExecutorError(Exception):
    """The base of what the executor raises in its host."""


class CallNotSendable(ExecutorError, PicklingError, TypeError):
    """A call or its value cannot cross to a child and back."""


class CallRaised(ExecutorError):
    """A call raised an exception that cannot be pickled or unpickled: this one carries its text."""


class RemoteTraceback(ExecutorError):
    """What a traceback was in the child: the cause of an exception that came from there."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class ExecutorClosed(ExecutorError, RuntimeError):
    """An executor was used that is closed, or that another process made, of which this is a copy."""


class ExecutorBusy(ExecutorError, RuntimeError):
    """A call polled the executor that runs it in its own process."""


class ForkFailed(ExecutorError, OSError):
    """The system refused a new process, again and again."""


class WorkdirGone(ExecutorError, OSError):
    """The working directory does not exist, also after waiting for a deployment to end."""


class CannotStart(ExecutorError, RuntimeError):
    """What children would come from cannot be started; the message says why."""


class SoftTimeLimitExceeded(BaseException):
    """
    Raised inside a call at its soft time limit, so that it can clean up.

    No subclass of Exception, so that `except Exception` around one step of the work does not
    swallow it (as asyncio.CancelledError, and the Interrupt of dramatiq). Raised once, in the main
    thread, between two steps of Python. Tasks of an asyncio loop there are cancelled instead.
    """


def message_of(error: BaseException) -> str:
    """Return `str(error)`, or that it has none to show. Never raises, whatever its own `__str__` does."""
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - a broken __str__ may raise anything
        kind = type(error)
        return f"<{kind.__module__}.{kind.__qualname__}: its message cannot be shown>"
