"""
Child side: the first steps of a fresh interpreter, which becomes a template or one child.

    read the order -> load what it names, looking for what a fork must not copy -> live
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import socket
import sys
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

from dayfly import __version__
from dayfly.executor import (
    child,
    farewell,
    heap,
    holes,
    hugepages,
    rehearsal,
    template,
    tidy,
    titles,
    unsafe,
    workdir,
)
from dayfly.executor.call import resolve
from dayfly.executor.child_codes import EXIT_START_FAILED
from dayfly.executor.errors import WorkdirGone
from dayfly.executor.source import FIRST_FD, Source
from dayfly.executor.terms import Terms

#: An answer is one packet; more words help nobody.
_MAX_WORDS = 4_000


class Refused(Exception):
    """What was loaded must not be forked, or cannot be loaded; the message names it."""


def main(role: str, version: str) -> NoReturn:
    """
    Become a template ("template") or a child ("child"); never returns.

    *version* is that of the parent, which may be older than what a deployment has put in its place.
    """
    try:
        if version != __version__:
            _refuse(role, f"dayfly was changed on disk, from {version} to {__version__}")
        with open(FIRST_FD, "rb") as file:
            order = pickle.load(file)
        if role == "template":
            _become_template(order)
        _become_child(order)
    except BaseException:  # noqa: BLE001 - an interpreter's own exit would finalise for long
        traceback.print_exc()
        os._exit(EXIT_START_FAILED)


def _refuse(role: str, why: str) -> NoReturn:
    """Say what keeps parent and new process from understanding each other."""
    why += ", and the process that starts others still runs the former: restart it"
    if role != "template":
        os.write(FIRST_FD + 2, f"This child does not start: {why}.\n".encode())
        os._exit(EXIT_START_FAILED)
    control = socket.socket(fileno=FIRST_FD + 1)
    template.say(control, {"refused": why})
    _wait_to_be_killed(control)


def _become_template(order: dict[str, Any]) -> NoReturn:
    control = socket.socket(fileno=FIRST_FD + 1)
    tidy.die_with_parent(order["parent_pid"])
    titles.show("dayfly: template (loading)", short="dayfly-template")
    try:
        gc.disable()
        skipped = _load(order, look=unsafe.Watch(order["source"].find_unsafe))
        terms: Terms = pickle.loads(order["terms"])
    except BaseException as error:  # noqa: BLE001 - told to the parent, whatever it is
        if not isinstance(error, Refused):
            traceback.print_exc()
            error = Refused(f"loading failed with {type(error).__name__}: {error}")
        farewell.flush_streams()  # what was printed while loading: we are killed, and do not exit
        template.say(control, {"refused": str(error).rstrip(".")[:_MAX_WORDS]})
        _wait_to_be_killed(control)
    heap.freeze(immortal=order["source"].immortal)
    holes.fill()
    streams = tidy.StandardStreams()
    streams.install(None)
    rehearsal.rehearse(terms)
    if order["source"].huge_pages:
        hugepages.collapse_heap()
    template.say(control, {"ready": True, "skipped": "; ".join(skipped)[:_MAX_WORDS]})
    template.serve(control, streams, terms, workdir_known=order["workdir"][2])


def _become_child(order: dict[str, Any]) -> NoReturn:
    channel = socket.socket(fileno=FIRST_FD + 1)
    output_fd = FIRST_FD + 2
    tidy.die_with_parent(order["parent_pid"])
    tidy.StandardStreams().install(output_fd)
    tidy.point_at_null(output_fd)
    titles.show(f"{order['title']} (loading)", short="dayfly-child")
    for why in _load(order, look=None):
        sys.stderr.write(f"{why}\n")
    terms: Terms = pickle.loads(order["terms"])
    child.live_tidied(channel, terms, workdir_known=order["workdir"][2], was_executed=True)


def _wait_to_be_killed(control: socket.socket) -> NoReturn:
    """
    Hear the parent out: who closes a socket with questions in it resets it, and the answer may be lost.

    Source: unix_release_sock in Linux, net/unix/af_unix.c.
    """
    while control.recv(4096):
        pass
    os._exit(0)


def _load(order: dict[str, Any], *, look: unsafe.Watch | None) -> list[str]:
    """
    Load what the order names; return what could not be loaded and may be missing.

    Raises:
        Refused: a step that is needed failed, or left what a fork must not copy.
    """
    source: Source = order["source"]
    directory, wait_seconds, known = order["workdir"]
    if directory is not None:
        try:
            workdir.enter(directory, wait_seconds=wait_seconds, known=known)
        except WorkdirGone as error:
            raise Refused(str(error)) from error
    skipped = []
    for what, is_needed, step in _steps(source, order["main"]):
        try:
            step()
        except (
            BaseException
        ) as error:  # SystemExit, too: a module that exits is a module that fails
            message = f"{what} failed with {type(error).__name__}: {str(error).rstrip('.')}"
            if is_needed:
                raise Refused(message) from error
            skipped.append(message)
        if look is not None and (found := look.found()):
            message = f"{what} left {found}"
            raise Refused(message)
    return skipped


def _steps(source: Source, main_program: dict[str, Any] | None) -> Iterator[tuple[str, bool, Any]]:
    if main_program is not None:
        yield "importing the main program", True, lambda: _prepare(main_program)
    if source.set_up:
        yield source.set_up, True, lambda: resolve(source.set_up)()
    for name in source.preload:
        yield f"importing {name}", True, lambda name=name: importlib.import_module(name)
    if source.find_modules:
        for name in resolve(source.find_modules)():
            yield f"importing {name}", False, lambda name=name: importlib.import_module(name)
    if source.warm_up:
        yield source.warm_up, True, lambda: resolve(source.warm_up)()


def _prepare(main_program: dict[str, Any]) -> None:
    from multiprocessing import process, spawn

    # By this multiprocessing, and our own faces, know a program that starts children unguarded.
    this: Any = process.current_process()
    this._inheriting = True
    try:
        spawn.prepare(main_program)
    finally:
        del this._inheriting
