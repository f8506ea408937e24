"""The lines that a task prints: updated in place on a terminal, plain in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

from streampulse.core.errors import OperatorError

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
    """One step of a task: its notes while it runs, its result at the end."""

    def __init__(self, screen: "Screen", name: str) -> None:
        self._screen = screen
        self._begun = time.monotonic()
        self.name = name
        self.text = "done"

    def note(self, text: str) -> None:
        """Show the current activity."""
        self._screen.now(self.name, text)

    def done(self, text: str) -> None:
        """Set the result that is shown at the end."""
        self.text = text

    @property
    def seconds(self) -> float:
        """The time since the step began, in seconds."""
        return time.monotonic() - self._begun


class Screen:
    """Standard output, as a terminal or as a log."""

    def __init__(self, console: Console | None = None) -> None:
        # In a log nothing is cut or wrapped.
        width = None if sys.stdout.isatty() else LOG_WIDTH
        self.console = console or Console(highlight=False, soft_wrap=True, emoji=False, markup=False, width=width)
        self._status: Status | None = None

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._quiet()
        self.console.print(text)
        sys.stdout.flush()

    def now(self, name: str, text: str) -> None:
        """Show the current activity: in place on a terminal, as a line elsewhere."""
        shown = f"{name:<{NAME_WIDTH}}{text} ..."
        if not self.console.is_terminal:
            self.line(f"  {shown}")
        elif self._status is None:
            self._status = self.console.status(shown)
            self._status.start()
        else:
            self._status.update(shown)

    def part(self, name: str, text: str, seconds: float) -> None:
        """Print the line of a part that has ended."""
        self.line(f"  {name:<{NAME_WIDTH}}{text:<{TEXT_WIDTH}}{took(seconds):>10}")

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Show one step from its beginning to its end. A step that fails prints nothing: the error says enough."""
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


def confirm(question: str, yes: bool, command: str, typed: str = "") -> None:
    """Ask before something is lost.

    :param yes: the answer was given on the command line.
    :param command: the command line that does not ask.
    :param typed: the name of a protected environment. It is the only answer, and the command line cannot give it.
    :raises OperatorError: standard input is not a terminal, or the answer was no.
    """
    if yes and not typed:
        return
    if not sys.stdin.isatty():
        if typed:
            raise OperatorError(f"{question} {typed} is protected: run this on a terminal, and type its name there")
        raise OperatorError(f"{question} Nobody is there to ask: {command}")
    sys.stdout.write(f"{question} {f'Type {typed} to go on:' if typed else '[y/N]'} ")
    sys.stdout.flush()
    answer = sys.stdin.readline().strip()
    if typed and answer != typed:
        raise OperatorError(f"nothing was changed: the answer was not {typed}")
    if not typed and answer.lower() not in ("y", "yes"):
        raise OperatorError(f"nothing was changed; without being asked: {command}")
