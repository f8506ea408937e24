"""What a person sees: a few calm lines, the running one updated in place on a terminal and plain in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.status import Status

NAME_WIDTH = 18
TEXT_WIDTH = 50
LOG_WIDTH = 200


def took(seconds: float) -> str:
    """Return a time span as people write it: ``0.4 s``, ``14 s``, ``1 min 32 s``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


class Step:
    """One thing that matters: what it is doing while it runs, what came of it at the end."""

    def __init__(self, screen: Screen, name: str) -> None:
        self._screen = screen
        self._begun = time.monotonic()
        self.name = name
        self.text = "done"

    def note(self, text: str) -> None:
        """Say what is going on now."""
        self._screen.now(self.name, text)

    def done(self, text: str) -> None:
        """Say what came of it."""
        self.text = text

    @property
    def seconds(self) -> float:
        """How long it has been running, in seconds."""
        return time.monotonic() - self._begun


class Screen:
    """Standard output, as a terminal or as a log."""

    def __init__(self, console: Console | None = None) -> None:
        # In a log nothing is cut or wrapped.
        width = None if sys.stdout.isatty() else LOG_WIDTH
        self.console = console or Console(highlight=False, soft_wrap=True, emoji=False, markup=False, width=width)
        self._status: Status | None = None

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._quiet()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._quiet()
        self.console.print(text)
        sys.stdout.flush()

    def now(self, name: str, text: str) -> None:
        """Show what is going on: in place on a terminal, as a line elsewhere."""
        shown = f"{name:<{NAME_WIDTH}}{text} ..."
        if not self.console.is_terminal:
            self.line(f"  {shown}")
        elif self._status is None:
            self._status = self.console.status(shown)
            self._status.start()
        else:
            self._status.update(shown)

    def part(self, name: str, text: str, seconds: float) -> None:
        """Print the line of something that has ended."""
        self.line(f"  {name:<{NAME_WIDTH}}{text:<{TEXT_WIDTH}}{took(seconds):>10}")

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Show one step from its beginning to its end; nothing of it stays when it fails, the error says enough."""
        step = Step(self, name)
        try:
            yield step
        finally:
            self._quiet()
        self.part(name, step.text, step.seconds)

    def _quiet(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
