"""Being told to end, by Ctrl-C or by a signal: what was started here ends first, and nothing goes on unseen."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """A signal that is sent to this process alone; Ctrl-C reaches all processes of the terminal."""

    def __init__(self, number: int) -> None:
        """Note which signal it was."""
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def signals_raised() -> Iterator[None]:
    """Let a signal to end be an exception, so that whoever waits for a program can end that first."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise Terminated(number)

    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
