"""A recycle policy of a project's own."""

from __future__ import annotations


class InPairs:
    """A child serves two tasks, or one when it prints something."""

    def calls_for_new_child(self):
        return 2

    def keeps(self, report):
        return not report.output


class NeedsAnArgument:
    """Cannot be made by a worker, which gives none."""

    def __init__(self, calls):
        self.calls = calls


not_a_class = 3
