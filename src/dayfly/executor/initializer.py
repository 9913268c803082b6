"""
Child side: what is run in each child before its first call, and what follows when that fails.

The initializer runs before the child gets a call, so on standby it costs that call no time. When
it raises, the child keeps the reason, and every call that it gets raises it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dayfly.executor.errors import ExecutorError

_failure: str | None = None


class InitializerRaised(ExecutorError):
    """The initializer failed in this child; the message is its traceback."""


#: By this the parent knows it.
RAISED_PATH = f"{InitializerRaised.__module__}.{InitializerRaised.__qualname__}"


@dataclass(frozen=True, slots=True)
class Initializer:
    """A hook for `Terms.before_calls`."""

    function: Callable[..., object]
    arguments: tuple[Any, ...] = ()

    def __call__(self) -> None:
        """Run it; remember how it failed."""
        global _failure
        try:
            self.function(*self.arguments)
        except BaseException:  # noqa: BLE001 - SystemExit, too, must not end a child on standby in silence
            _failure = traceback.format_exc()


def run_initialized(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """
    Call *function* in a child whose initializer has run.

    Raises:
        InitializerRaised: it has failed here.
    """
    if _failure is not None:
        raise InitializerRaised(_failure)
    return function(*args, **kwargs)
