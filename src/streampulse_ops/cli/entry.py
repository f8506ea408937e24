"""The frame of every task: errors as one line, the time at the end, the exit code."""

import functools
import signal
import time
from collections.abc import Callable
from typing import Any, TypeVar

from invoke.exceptions import Exit
from rich.console import Console

from streampulse.core.errors import IncompleteError, OperatorError, SettingsError, UsageError
from streampulse_ops.cli.console import Screen, took
from streampulse_ops.cli.ending import Terminated, signals_raised
from streampulse_ops.cli.ownership import explain

# The exit code of a task that did everything but optional components that could not be installed.
INCOMPLETE = 3

Body = TypeVar("Body", bound=Callable[..., Any])


def timed(body: Body) -> Body:
    """Make a task of a function that returns its closing words, or None where the output speaks for itself.

    The words are printed after the task's name and its time. An error that a person can fix is printed as one line,
    without a traceback.
    """

    @functools.wraps(body)
    def task(*arguments: Any, **keywords: Any) -> None:
        begun = time.monotonic()
        name = body.__name__.rstrip("_").replace("_", "-")
        try:
            with signals_raised():
                words = body(*arguments, **keywords)
        except IncompleteError as error:
            # The rest was done and checked, so the usual closing line is printed too.
            Screen().line(f"{name} in {took(time.monotonic() - begun)} · {error.done}")
            raise Exit(f"{name}: {error}", code=INCOMPLETE) from None
        except (OperatorError, SettingsError) as error:
            raise Exit(f"{name}: {error}", code=2 if isinstance(error, UsageError) else 1) from None
        except OSError as error:
            raise Exit(f"{name}: {explain(error)}", code=1) from None
        except KeyboardInterrupt as error:
            again = "the same command completes what was begun"
            code = 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)
            raise Exit(f"{name}: interrupted after {took(time.monotonic() - begun)}; {again}", code=code) from None
        more = f" · {words}" if words else ""
        # With --json, standard output is for another program.
        console = Console(stderr=True, highlight=False, markup=False) if keywords.get("json") else None
        Screen(console).line(f"{name} in {took(time.monotonic() - begun)}{more}")

    return task  # type: ignore[return-value] # same parameters, other result: Invoke reads the parameters only
