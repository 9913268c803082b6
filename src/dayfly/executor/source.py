"""Both sides: plain data. What an exec'd process loads before it forks children, or runs calls itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: The first descriptor of the new process beyond the standard streams: its order. What it lives on follows.
FIRST_FD = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """
    What a template holds, or a spawned child begins with. Functions are named by dotted path.

    In this order: *environment*, *set_up*, *preload*, *warm_up*. After each step the
    template looks for what a fork must not copy, so that it can name the step that left it.

    Raises:
        ValueError: a limit that is not above zero.
    """

    #: Set on top of what the parent's environment has.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: A function without arguments, called first (`django.setup`).
    set_up: str = ""
    #: Modules to import. One that cannot be imported is refused.
    preload: tuple[str, ...] = ()
    #: A function that returns names of more modules, which may fail to import: that is only said.
    find_modules: str = ""
    #: A function without arguments, called last: to fill caches, compile templates.
    warm_up: str = ""
    #: A function that says what else must not be forked (an open connection), or nothing.
    find_unsafe: str = ""
    #: Import the main program's module too, as `multiprocessing` does, so that its functions are found.
    main: bool = False
    #: Never free code that a template has loaded, so that no child copies it to count references: heap.py.
    immortal: bool = True
    #: Put the heap of a template into huge pages, where the kernel can: hugepages.py.
    huge_pages: bool = True
    #: Where none can be had, fork copies of the parent instead, which load what they need themselves.
    falls_back: bool = True
    #: How long all of it may take.
    start_seconds: float = 60.0
    #: A template of this age (since it was ready) is replaced, while it serves; None: never.
    max_age_seconds: float | None = None
    #: The same for one that holds so much more than when it was ready (RssAnon, and what was
    #: swapped out). It runs none of the tasks: this is what hooks at forks leave. None: never.
    max_growth_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_age_seconds", "max_growth_bytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                message = f"{name}={value!r}: give a number above 0, or None for no limit"
                raise ValueError(message)
