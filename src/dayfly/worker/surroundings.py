"""Parent side: what a deployment changes under a running worker: its directory, settings and sources."""

from __future__ import annotations

from dayfly.executor import Executor
from dayfly.worker import ground, launching
from dayfly.worker.announcer import logger
from dayfly.worker.options import WorkerOptions
from dayfly.worker.reload import SourceWatch


class Surroundings:
    """Knows what was there when the worker started, and follows what comes after."""

    def __init__(self, options: WorkerOptions) -> None:
        """
        Look at them, from where the worker was started.

        Raises:
            ground.CannotStart: there is no such working directory.
        """
        self.directory = ground.WorkingDirectory(options.workdir)
        self._settings_file = launching.settings_of_template(options)
        self._is_inline = options.is_inline
        self._reloads = options.reload
        self._sources: SourceWatch | None = None

    def settle(self) -> None:
        """Go where this process stays: in the directory of the tasks only if it runs them itself."""
        if self._is_inline:
            self.directory.enter()
        else:
            self.directory.leave()

    def begin(self) -> None:
        """Begin with what is loaded now: all that the worker needs."""
        if self._reloads:
            self._sources = SourceWatch(follows_imports=self._is_inline)

    def follow(self, executor: Executor) -> str | None:
        """Have *executor* follow what has changed; return a source file for which the worker must start again."""
        if self.directory.was_replaced():
            self._go_to_new_directory(executor)
        elif self._settings_file and self._settings_file.was_changed():
            logger.warning(
                "The settings in %s were changed: tasks see them as soon as a new template has loaded"
                " them. Restart the worker, too, for what it has loaded itself.",
                self._settings_file.path,
            )
            executor.renew()
        return self._sources.changed() if self._sources else None

    def _go_to_new_directory(self, executor: Executor) -> None:
        logger.warning(
            "The working directory %s was replaced: the next tasks run in the new one. Restart"
            " the worker, too, for models and settings that it has loaded.",
            self.directory.path,
        )
        if self._is_inline:
            self.directory.enter()
        executor.renew()
        if self._settings_file:
            self._settings_file.take()
