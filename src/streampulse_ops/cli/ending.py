"""The end by Ctrl-C or by a signal: child processes end first."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """A signal that is sent to this process alone; Ctrl-C reaches all processes of the terminal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def signals_raised() -> Iterator[None]:
    """Turn signals that end this process into an exception, so that code that waits for a child can end it first."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise Terminated(number)

    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
