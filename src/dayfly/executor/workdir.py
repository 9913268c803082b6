"""
Both sides: the working directory is a path, not an inode.

A deployment replaces the release directory: the `current` symlink moves, or the
directory is removed and copied anew. A process that sits in the old inode cannot
import, cannot even ask where it is. So the unresolved path is remembered, imports are
made to go through it, and every call starts by going there.
"""

from __future__ import annotations

import importlib
import os
import sys
import time

from dayfly.executor.errors import WorkdirGone


def unresolved(configured: str | None = None) -> str:
    """
    Return the working directory as people name it.

    *configured*, made absolute; else $PWD where it names the current directory
    (a shell keeps symlinks in it); else what the kernel says.
    """
    if configured is not None:
        base = os.environ.get("PWD") or os.getcwd()
        return os.path.normpath(os.path.join(base, os.path.expanduser(configured)))
    here = os.getcwd()
    shell_says = os.environ.get("PWD", "")
    try:
        if os.path.isabs(shell_says) and os.path.samefile(shell_says, here):
            return os.path.normpath(shell_says)
    except OSError:
        pass
    return here


def route_imports_through(workdir: str) -> None:
    """
    Make imports look below *workdir* by its unresolved name.

    Python resolves the script's directory into sys.path[0], and packages remember where
    they were found: both would keep looking in the release of yesterday.
    """
    real = os.path.realpath(workdir)

    def rerouted(entry: str) -> str:
        if not entry:
            return workdir
        if not os.path.isabs(entry):
            return os.path.join(workdir, entry)
        if entry == real or entry.startswith(real + os.sep):
            return workdir + entry[len(real) :]
        return entry

    sys.path[:] = [rerouted(entry) for entry in sys.path]
    if real == workdir:
        return
    for module in list(sys.modules.values()):
        path = getattr(module, "__path__", None)
        if isinstance(path, list):
            path[:] = [rerouted(entry) for entry in path]


def identity(workdir: str) -> tuple[int, int] | None:
    """Tell which directory *workdir* names just now; None when there is none."""
    try:
        # Not pathlib, which interns the parts of each path: asked for ever, that makes CPython's
        # table of interned strings grow by 1 MB.
        found = os.stat(workdir)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def enter(workdir: str, *, wait_seconds: float, known: tuple[int, int] | None) -> None:
    """
    Go to *workdir* and say so in $PWD.

    Waits for a directory that a deployment has removed and not yet copied. When it is
    another one than *known*, what importers remember of its contents is dropped.

    Raises:
        WorkdirGone: it does not exist, also after *wait_seconds*.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            os.chdir(workdir)
            break
        except OSError as error:
            if time.monotonic() >= deadline:
                message = (
                    f"The working directory {workdir} cannot be entered ({error.strerror}), "
                    f"also after waiting {wait_seconds:g} s. Was the release directory removed? "
                    "Put it back, or name another with --workdir."
                )
                raise WorkdirGone(message) from error
            time.sleep(0.05)
    os.environ["PWD"] = workdir
    if known is not None and identity(workdir) != known:
        importlib.invalidate_caches()
