"""Run the steps of the gate one after the other, and keep the score."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: A step that hangs must not hold the gate up for ever.
STEP_LIMIT_SECONDS = 30 * 60
#: pytest's closing line: "== 3 failed, 40 passed, 1 skipped in 12.34s (0:00:12) ==".
CLOSING = re.compile(r"^=+ (.*\d+ \w+.*) in \d+(\.\d+)?s\b.*=+$")
COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped)\b")


@dataclass(slots=True, kw_only=True)
class Step:
    """One step that ran."""

    title: str
    passed: bool = False
    seconds: float = 0.0
    tests: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Score:
    """All steps that ran, and what could not be run."""

    words: Sequence[str] = ()
    steps: list[Step] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def wants(self, title: str) -> bool:
        """Tell whether a step of that title was asked for."""
        return not self.words or any(word.lower() in title.lower() for word in self.words)

    def do(self, title: str, act: Callable[[Step], bool]) -> bool:
        """Run one step under a heading; *act* says whether it passed."""
        step = Step(title=title)
        self.steps.append(step)
        heading(title)
        started = time.monotonic()
        step.passed = act(step)
        step.seconds = time.monotonic() - started
        print(
            f"--- {title}: {'ok' if step.passed else 'FAILED'} ({step.seconds:.0f} s)", flush=True
        )
        return step.passed

    def command(
        self, title: str, command: Sequence[str] | str, variables: Mapping[str, str] | None = None
    ) -> bool:
        """Run *command* as a step, if it is wanted; its tests are counted."""
        if not self.wants(title):
            return True
        return self.do(title, lambda step: run(step, command, variables or {}))

    def leave_out(self, sentence: str) -> None:
        """Say at once, and again at the end, that something is not tested."""
        self.left_out.append(sentence)
        print(f"\nLEFT OUT: {sentence}", flush=True)

    def finish(self) -> int:
        """Print the summary, and return the exit code."""
        heading("Summary")
        for step in self.steps:
            word = "ok" if step.passed else "FAILED"
            tests = ", ".join(f"{number} {what}" for what, number in step.tests.items())
            print(f"{word:<6} {step.seconds:5.0f} s  {step.title}{f': {tests}' if tests else ''}")
        for sentence in self.left_out:
            print(f"LEFT OUT: {sentence}")
        total = {
            what: sum(step.tests.get(what, 0) for step in self.steps)
            for what in ("passed", "failed", "skipped")
        }
        # A step without tests of its own that failed (lint, types, a crash) is one failure.
        failures = total["failed"] + sum(
            not step.passed and not step.tests.get("failed") for step in self.steps
        )
        seconds = sum(step.seconds for step in self.steps)
        print(
            f"{len(self.steps)} steps, {total['skipped']} tests skipped, {seconds / 60:.1f} minutes"
        )
        if not self.steps:
            print("Error: no step's title contains any of the words given.")
        print(f"{total['passed']} passed, {failures} failed", flush=True)
        return 0 if self.steps and not failures else 1


def heading(title: str) -> None:
    print(f"\n{'=' * 100}\n=== {title}\n{'=' * 100}", flush=True)


def run(step: Step, command: Sequence[str] | str, variables: Mapping[str, str]) -> bool:
    """Run *command* (a text goes to the shell), pass its output on, and count its tests."""
    in_shell = isinstance(command, str)
    print("$", command if in_shell else shlex.join(command), flush=True)
    process = subprocess.Popen(
        command,
        shell=in_shell,
        cwd=ROOT,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    limit = threading.Timer(STEP_LIMIT_SECONDS, give_up, [process])
    limit.start()
    try:
        with process:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                count(step, line)
        return process.returncode == 0
    except KeyboardInterrupt:
        kill(process)
        raise
    finally:
        limit.cancel()


def count(step: Step, line: str) -> None:
    """Add what pytest's closing line says to the step."""
    closing = CLOSING.match(line.strip())
    if closing is None:
        return
    for number, what in COUNT.findall(closing.group(1)):
        kind = "failed" if what.startswith("error") else what
        step.tests[kind] = step.tests.get(kind, 0) + int(number)


def give_up(process: subprocess.Popen[str]) -> None:
    """End a step that takes too long."""
    print(f"\nError: this step took longer than {STEP_LIMIT_SECONDS} s and is killed.", flush=True)
    kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended by itself meanwhile
