"""The probe's parts, each in a thread of its own: what one of them waits for, no other does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

_AFTER_AN_ERROR_SECONDS: Final = 5.0


class Part(threading.Thread):
    """Does the same thing again and again until it is told to stop.

    :param name: what its log lines call it.
    :param step: does it once, and returns after how many seconds it is due again.
    """

    def __init__(self, name: str, step: Callable[[], float]) -> None:
        # A step that waits for an answer must not keep the process from ending.
        super().__init__(name=name, daemon=True)
        self._do = step
        self._ended = threading.Event()
        self._wake = threading.Event()
        #: When the last step began, on the monotonic clock.
        self.alive_at = time.monotonic()

    def run(self) -> None:
        """Go on until :meth:`stop`."""
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
        """Have the next step done at once."""
        self._wake.set()

    def stop(self) -> None:
        """Have no further step done."""
        self._ended.set()
        self._wake.set()


class Voice:
    """Says once that something is wrong, and once that it is well again.

    :param what: what the lines are about.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._cause: str | None = None

    def well(self) -> None:
        """Note that it is well."""
        if self._cause is not None:
            self._cause = None
            log.info("%s answers again", self._what)

    def wrong(self, cause: str) -> None:
        """Note that it is not, and why."""
        if self._cause is None:
            log.warning("%s does not answer as it should", self._what, extra={"fields": {"error": cause}})
        self._cause = cause
