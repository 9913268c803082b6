"""
Both sides: what a process is called in process lists.

Its place is found next to the first variable of the environment, when the first title is shown: to
be done before that variable can be replaced. PWD is, in a new release, and often stands first.
"""

from __future__ import annotations

from setproctitle import setproctitle, setthreadtitle


def show(title: str, *, short: str) -> None:
    """
    Say what this process does, and in one word (15 characters) what it is.

    *short*, the name in /proc/self/stat, gets no space: CPython counts the fields there to learn
    how many threads run, and would warn a task that forks of threads that do not exist.
    """
    if not title.isprintable():  # NUL and halves of surrogate pairs are refused
        title = "".join(char if char.isprintable() else "?" for char in title)
    setproctitle(title)
    setthreadtitle(short)
