"""The probe's parts, each in its own thread, so that none waits for another."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

_AFTER_AN_ERROR_SECONDS: Final = 5.0


class Unreadable(Exception):  # noqa: N818 - a finding
    """Kafka or the ledger could not be read; the text says why."""


class Part(threading.Thread):
    """Repeats a step until it is stopped.

    :param name: name in log lines.
    :param step: does the work once and returns the seconds until the next step.
    """

    def __init__(self, name: str, step: Callable[[], float]) -> None:
        # A daemon thread: a step that waits for a response must not delay the process's exit.
        super().__init__(name=name, daemon=True)
        self._do = step
        self._ended = threading.Event()
        self._wake = threading.Event()
        #: Start of the last step, on the monotonic clock.
        self.alive_at = time.monotonic()

    def run(self) -> None:
        """Run until :meth:`stop`."""
        while not self._ended.is_set():
            self._wake.clear()
            self.alive_at = time.monotonic()
            try:
                pause = self._do()
            except Exception:
                log.exception("unexpected error", extra={"fields": {"part": self.name}})
                pause = _AFTER_AN_ERROR_SECONDS
            if not self._ended.is_set():
                self._wake.wait(pause)

    def wake(self) -> None:
        """Run the next step at once."""
        self._wake.set()

    def stop(self) -> None:
        """Run no further step."""
        self._ended.set()
        self._wake.set()


class Voice:
    """Logs once that something fails, and once that it works again.

    :param what: subject of the log lines.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._cause: str | None = None

    def well(self) -> None:
        """Record success."""
        if self._cause is not None:
            self._cause = None
            log.info("%s answers again", self._what)

    def wrong(self, cause: str) -> None:
        """Record a failure with its reason."""
        if self._cause is None:
            log.warning("%s does not answer as it should", self._what, extra={"fields": {"error": cause}})
        self._cause = cause
