"""The duration of up and down."""

import time
from collections.abc import Callable

from streampulse_ops.bench.figures import Figure, Measured
from streampulse_ops.bench.options import Options
from streampulse_ops.bench.place import Place
from streampulse_ops.environments.session import Session
from streampulse_ops.verbs.down import down
from streampulse_ops.verbs.up import up


def first(session: Session) -> Measured:
    """Bring the stack up from nothing; images and artifacts come from the caches if present."""
    seconds = timed(lambda: up(session, full=False))
    note = "from no machine, with the caches of images and artifacts as they were"
    return Measured([Figure("up.first", "up, the first time", seconds, "s", note=note)], {"first": seconds})


def measure(place: Place, options: Options) -> Measured:
    """Bring the running stack up again, down, and up once more, each with its smoke test."""
    del options
    session = place.session
    unchanged = timed(lambda: up(session, full=False))
    halted = timed(lambda: down(session, full=False, wipe=False))
    again = timed(lambda: up(session, full=False))
    return Measured(
        [
            Figure("up.unchanged", "up, nothing to change", unchanged, "s"),
            Figure("up.down", "down", halted, "s"),
            Figure("up.again", "up after down, to the end of smoke", again, "s"),
        ],
        {"unchanged": unchanged, "down": halted, "again": again},
    )


def timed(action: Callable[[], object]) -> float:
    """Return the duration of a call in seconds."""
    begun = time.monotonic()
    action()
    return time.monotonic() - begun
