"""
What is compared. Each contender runs two calls at a time.

Imports of a contender stand in its function: a host loads only what it measures.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench_executor.pools import FuturesPool, LoopPool, MultiprocessingPool, Pool

CONCURRENCY = 2
SMALL, LARGE = "small", "large"
MODULES = {SMALL: "bench_executor.work", LARGE: "bench_executor.application"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to run calls in children."""

    title: str
    #: Takes the name of the application's module.
    build: Callable[[str], Pool]
    is_ours: bool = True
    #: The package that it comes from, where that is to be installed.
    needs: str = ""
    #: Calls that a child serves.
    calls_per_child: int = 1
    #: Children that are kept ready beyond those that run.
    standby: int = 0
    #: Whether each child imports the application for itself.
    imports_itself: bool = False
    #: Whether the parent has loaded the application, too.
    parent_loads: bool = True
    parents: tuple[str, ...] = field(default=(SMALL, LARGE))


def ours(
    module: str,
    *,
    launcher: str,
    standby: int = CONCURRENCY,
    calls: int = 1,
    huge_pages: bool | None = None,
    by_name: bool = False,
    in_detail: bool = False,
) -> Pool:
    """The loop face, its heap frozen by `warm_up` as the documentation says."""
    from dayfly.executor import AfterCalls, Executor, Source

    preload = (module, "bench_executor.by_name") if by_name else (module,)
    executor = Executor(
        concurrency=CONCURRENCY,
        standby=standby,
        policy=AfterCalls(calls),
        launcher=launcher,
        source=Source(
            preload=preload,
            huge_pages=huge_pages is not False,  # a template's default
            falls_back=False,
        ),
    )
    executor.warm_up(huge_pages=huge_pages is True)
    return LoopPool(executor, module, by_name=by_name, in_detail=in_detail)


def drop_in(module: str) -> Pool:
    """IsolatedExecutor as it comes."""
    from dayfly.executor import IsolatedExecutor

    pool = IsolatedExecutor(CONCURRENCY)
    return FuturesPool(pool.submit, pool.shutdown, importlib.import_module(module))


def standard(module: str, *, method: str, preload: bool = False) -> Pool:
    """ProcessPoolExecutor with a process for each task."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context: Any = multiprocessing.get_context(method)
    if preload:
        context.set_forkserver_preload([module])
    pool = ProcessPoolExecutor(CONCURRENCY, mp_context=context, max_tasks_per_child=1)
    return FuturesPool(
        pool.submit, partial(pool.shutdown, cancel_futures=True), importlib.import_module(module)
    )


def standard_pool(module: str) -> Pool:
    """multiprocessing.Pool with a process for each task, forked from the parent."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    pool = context.Pool(CONCURRENCY, maxtasksperchild=1)
    return MultiprocessingPool(pool, importlib.import_module(module))


def pebble(module: str) -> Pool:
    """pebble with a process for each task, forked from the parent."""
    import multiprocessing

    from pebble import ProcessPool

    context: Any = multiprocessing.get_context("fork")
    pool = ProcessPool(max_workers=CONCURRENCY, max_tasks=1, context=context)

    def submit(function: Callable[..., Any], *arguments: object) -> Any:
        return pool.schedule(function, args=arguments)

    def close() -> None:
        pool.stop()
        pool.join()

    return FuturesPool(submit, close, importlib.import_module(module))


def loky(module: str) -> Pool:
    """loky's reusable executor: it has no way to end a process after one task."""
    from loky import get_reusable_executor

    pool = get_reusable_executor(max_workers=CONCURRENCY)
    return FuturesPool(
        pool.submit, partial(pool.shutdown, kill_workers=True), importlib.import_module(module)
    )


def mine(title: str, launcher: str, **more: Any) -> Contender:
    """Describe one of dayfly's."""
    about = {
        name: more.pop(name)
        for name in ("imports_itself", "parent_loads", "parents")
        if name in more
    }
    return Contender(
        title=f"dayfly, {title}",
        build=partial(ours, launcher=launcher, **more),
        calls_per_child=more.get("calls", 1),
        standby=more.get("standby", CONCURRENCY),
        **about,
    )


#: In the order of the tables.
CONTENDERS: dict[str, Contender] = {
    "fork": mine("fork", "fork"),
    "fork-huge": mine("fork, huge pages", "fork", huge_pages=True),
    "copy": mine("copy", "copy"),
    "copy-huge": mine("copy, huge pages", "copy", huge_pages=True),
    "template": mine("template", "template"),
    "template-4k": mine("template, no huge pages", "template", huge_pages=False),
    "template-0": mine("template, no standby", "template", standby=0),
    "template-detail": mine("template, USS and PSS read twice a call", "template", in_detail=True),
    "template-lean": mine(
        "template, parent without the application",
        "template",
        by_name=True,
        parent_loads=False,
        parents=(LARGE,),
    ),
    "template-10": mine("template, 10 calls per child", "template", calls=10),
    "template-1000": mine("template, 1,000 calls per child", "template", calls=1000),
    "spawn": mine("spawn", "spawn", imports_itself=True),
    "isolated": Contender(title="dayfly, IsolatedExecutor as it comes", build=drop_in),
    "ppe-spawn": Contender(
        title="ProcessPoolExecutor, spawn",
        build=partial(standard, method="spawn"),
        is_ours=False,
        imports_itself=True,
    ),
    "ppe-forkserver": Contender(
        title="ProcessPoolExecutor, forkserver",
        build=partial(standard, method="forkserver"),
        is_ours=False,
        imports_itself=True,
    ),
    "ppe-preload": Contender(
        title="ProcessPoolExecutor, forkserver with preload",
        build=partial(standard, method="forkserver", preload=True),
        is_ours=False,
        parents=(LARGE,),
    ),
    "mp-pool": Contender(title="multiprocessing.Pool, fork", build=standard_pool, is_ours=False),
    "pebble": Contender(title="pebble, fork", build=pebble, is_ours=False, needs="pebble"),
    "loky": Contender(
        title="loky, its processes used again",
        build=loky,
        is_ours=False,
        needs="loky",
        calls_per_child=0,
    ),
}
