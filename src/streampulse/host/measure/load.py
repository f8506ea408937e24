"""A steady load: the generator, run for a measurement."""

import os
import signal
import socket
import subprocess
import sys
from typing import Final

from streampulse.core.errors import OperatorError

_STOP_SECONDS: Final = 30.0


class Load:
    """The generator at a steady rate, inside the ``with`` block.

    :param rate: events per second.
    :param limit: number of events after which it ends; None: unlimited.
    """

    def __init__(self, rate: float, limit: int | None = None) -> None:
        self._command = [sys.executable, "-m", "streampulse.host.cli", "generator", "--rate", str(rate), "--seed", "1"]
        if limit is not None:
            self._command += ["--limit", str(limit)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Load":
        # A separate scrape port: the generator's service may use the usual one.
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {
            **os.environ,
            "STREAMPULSE_GENERATOR_METRICS_PORT": str(port),
            "STREAMPULSE_GENERATOR_METRICS_HOST": "127.0.0.1",
        }
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            self._command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def pid(self) -> int:
        """The process of the generator."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the generator has exited."""
        return self._process is None or self._process.poll() is not None

    def finish(self, seconds: float) -> None:
        """Wait until the limit is reached.

        :raises OperatorError: it is not reached within ``seconds``, or not every event was acknowledged.
        """
        if self._process is None:
            raise RuntimeError("not started")
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise OperatorError(f"the generator did not send its events within {seconds:g} s") from None
        if code != 0:
            raise OperatorError(f"the generator did not send all of its events (exit code {code})")
