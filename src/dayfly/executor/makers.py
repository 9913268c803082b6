"""Parent side: from the name of a launcher to what runs calls."""

from __future__ import annotations

from collections.abc import Callable

from dayfly.executor import workdir
from dayfly.executor.crew import Crew
from dayfly.executor.launchers import FromParent, FromScratch, Host, Launcher
from dayfly.executor.recycle import RecyclePolicy
from dayfly.executor.runner import Runner
from dayfly.executor.source import Source
from dayfly.executor.templates import FromTemplate
from dayfly.executor.terms import Terms

#: The launcher that launches nothing.
INLINE = "inline"


def make_runner(
    name: str,
    terms: Terms,
    source: Source,
    *,
    policy: RecyclePolicy,
    concurrency: int,
    standby: int,
    idle_seconds: float | None,
    measures_growth: bool,
) -> Runner:
    """
    Make what runs the calls of an executor with the launcher *name*; see Executor for the rest.

    Raises:
        ValueError: there is no such launcher.
    """
    if name == INLINE:
        # Here, as hosts that fork need not load it.
        from dayfly.executor.inline import Inline

        return Inline(terms)
    return Crew(
        terms,
        policy,
        launcher_maker(name, terms, source),
        concurrency=concurrency,
        standby=standby,
        idle_seconds=idle_seconds,
        measures_growth=measures_growth,
    )


def launcher_maker(name: str, terms: Terms, source: Source) -> Callable[[Host], Launcher]:
    """
    Return what makes the launcher *name* for whom it will work for.

    Raises:
        ValueError: there is no such launcher.
    """
    known = None
    if terms.workdir is not None:
        known = workdir.identity(terms.workdir)
        workdir.route_imports_through(terms.workdir)
    makers: dict[str, Callable[[Host], Launcher]] = {
        "fork": lambda host: FromParent(terms, known),
        "copy": lambda host: FromTemplate(terms, known, host),
        "template": lambda host: FromTemplate(terms, known, host, source),
        "spawn": lambda host: FromScratch(terms, known, source),
    }
    if name not in makers:
        message = f"launcher={name!r}: give one of {', '.join(makers)}, {INLINE}"
        raise ValueError(message)
    return makers[name]
