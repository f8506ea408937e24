"""Companions of an API measurement from elsewhere: a steady load, and a plain pool to compare with."""

import argparse
import signal
import subprocess
import sys
from typing import Any, Final

from streampulse.core.errors import OperatorError
from streampulse.host.measure.load import Load

_LOOK_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the measurement."""
    parser.add_argument("--rate", type=float, default=300.0, help="events per second (default: 300)")
    parser.add_argument("--plain-port", type=int, required=True, help="where the plain pool answers")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run both until a signal, and return the figures.

    :raises OperatorError: one of them ended early.
    """
    asked = {signal.SIGTERM, signal.SIGINT}
    # Child processes are started before the signal is blocked, so that they receive it.
    command = [sys.executable, "-m", "streampulse.api.plain_pool", str(args.plain_port)]
    with Load(args.rate) as running, subprocess.Popen(command, stdin=subprocess.DEVNULL) as plain:  # noqa: S603
        before = signal.pthread_sigmask(signal.SIG_BLOCK, asked)
        try:
            while signal.sigtimedwait(asked, _LOOK_SECONDS) is None:
                if plain.poll() is not None:
                    raise OperatorError(f"the plain pool ended by itself (exit code {plain.returncode})")
                if running.ended:
                    raise OperatorError("the generator ended by itself")
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            plain.terminate()
            plain.wait(_STOP_SECONDS)
    return {"rate": args.rate}
