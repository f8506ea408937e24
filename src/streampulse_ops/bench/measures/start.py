"""Time from the start of the job to its first commit, with and without class-data archives."""

import statistics
from typing import Any, Final

from streampulse_ops.bench.figures import Figure, Measured
from streampulse_ops.bench.options import Options
from streampulse_ops.bench.place import Place

AIM_SECONDS: Final = 6.0


def measure(place: Place, options: Options) -> Measured:
    """Start the job several times, with its archives and without."""
    words = ["start", "--unit", place.unit("job"), "--repeats", str(options.repeats)]
    details = {}
    with place.session.screen.step("start") as step:
        step.note("with class-data archives")
        # First, because it waits until archives exist.
        details["with"] = place.measure(words)
        step.note("without class-data archives")
        details["without"] = place.measure([*words, "--without-archives"])
        found = figures(details)
        step.done(f"{found[0].value:.1f} s to the first commit")
    return Measured(found, details)


def figures(details: dict[str, Any]) -> list[Figure]:
    """Return the figures: the median of the starts."""
    made = []
    for name, title, aim in (("with", "start to the first commit", AIM_SECONDS), ("without", "... no archive", None)):
        answer = details[name]
        if name == "without" and not answer["archives"]:
            continue
        note = "median of " + ", ".join(f"{seconds:.1f}" for seconds in answer["seconds"])
        if name == "with":
            note += (
                f"; {answer['there']} of {answer['archives']} class-data archives"
                if answer["archives"]
                else "; this JDK has no archives"
            )
        made.append(Figure(f"start.{name}", title, statistics.median(answer["seconds"]), "s", aim=aim, note=note))
    return made
