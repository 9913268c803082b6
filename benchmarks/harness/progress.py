"""How far it is: a bar on a terminal, a line for each step elsewhere."""

from __future__ import annotations

import sys

from tqdm import tqdm


class Progress:
    """One bar over all measurements."""

    def __init__(self, total: int) -> None:
        self.bar = tqdm(
            total=total,
            unit="step",
            disable=not sys.stderr.isatty(),
            bar_format="{bar:20} {n}/{total} {elapsed}<{remaining} {desc}",
        )

    def say(self, text: str) -> None:
        """Say what is being measured now."""
        if self.bar.disable:
            print(text, flush=True)
        else:
            self.bar.set_description_str(text)

    def warn(self, text: str) -> None:
        """Say something that must not be overlooked."""
        self.bar.write(f"!! {text}", file=sys.stderr)

    def step(self) -> None:
        """One more is done."""
        self.bar.update()

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()
