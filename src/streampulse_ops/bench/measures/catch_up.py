"""Catching up on a backlog; the numbers are verified afterwards."""

import json
from typing import Any, Final

from streampulse_ops.bench.figures import Figure, Measured
from streampulse_ops.bench.options import Options
from streampulse_ops.bench.place import Place

#: Events per second, all processes together.
MUST_FILL: Final = 100_000
# Event time of the backlog in minutes, and small fault shares as of real producers.
_MINUTES: Final = 60
_FAULTS: Final = {"duplicates": 0.01, "disorder": 0.02, "late": 0.0005, "garbage": 0.0005}
_SEED: Final = 1


def measure(place: Place, options: Options) -> Measured:
    """Stop the job, fill the topic, start the job, verify."""
    screen = place.session.screen
    # A backlog lies in the past: once live events have moved the event clocks, it would be late.
    place.renew()
    place.stop("job")
    with screen.step("backlog") as step:
        step.note(f"filling {options.backlog:,} events")
        words = ["fill", "--json", "--events", str(options.backlog), "--minutes", str(_MINUTES), "--seed", str(_SEED)]
        for name, share in _FAULTS.items():
            words += [f"--{name}", str(share)]
        filled = json.loads(place.command(words))
        step.done(f"{options.backlog:,} events at {options.backlog / filled['seconds']:,.0f} a second")
    with screen.step("catch-up") as step:
        step.note("the job works it off")
        caught = place.measure(["catch-up", "--unit", place.unit("job")])
        step.done(f"{caught['records_per_second']:,.0f} records a second")
    place.verify()
    return Measured(figures(filled, caught), {"fill": filled, "job": caught})


def figures(filled: dict[str, Any], caught: dict[str, Any]) -> list[Figure]:
    """Return the figures of both results."""
    return [
        Figure(
            "fill.rate",
            "generator, backlog",
            filled["events"] / filled["seconds"],
            "events/s",
            must=MUST_FILL,
            more_is_better=True,
            note="good events a second, from the start of the command to the last acknowledgement",
        ),
        Figure(
            "catch_up.rate",
            "catching up",
            caught["records_per_second"],
            "records/s",
            note=f"after the first batch; all of {caught['records']:,} records, then verified",
        ),
        Figure(
            "catch_up.first_commit",
            "start to the first commit, a backlog waiting",
            caught["first_commit_seconds"],
            "s",
            note=f"of a batch of {caught['batches'][0]['records']:,} records",
        ),
    ]
