"""Recovery from kill -9 to current numbers, for each service."""

from typing import Any, Final

from streampulse_ops.bench.figures import Figure, Measured
from streampulse_ops.bench.options import Options
from streampulse_ops.bench.place import Place

AIM_SECONDS, MUST_SECONDS = 10.0, 30.0
#: In this order: services that others depend on come last.
KILLED: Final = ("job", "executor", "spark-worker", "spark-master", "kafka", "postgres")


def measure(place: Place, options: Options) -> Measured:
    """Kill the services one after the other under a steady load, then verify."""
    del options
    targets = [name if name == "executor" else f"{name}={place.unit(name)}" for name in KILLED]
    with place.session.screen.step("recovery") as step:
        step.note("kill -9 of " + ", ".join(KILLED))
        answer = place.measure(["recovery", *targets])
        slowest = max(answer, key=lambda name: float(answer[name]["to_commit_seconds"]))
        step.done(f"slowest: {slowest}, {answer[slowest]['to_commit_seconds']:.1f} s")
    place.verify()
    return Measured(figures(answer), answer)


def figures(answer: dict[str, Any]) -> list[Figure]:
    """Return a figure for each killed service."""
    return [
        Figure(
            f"recovery.{name}",
            f"kill -9 of {name} to a new event's commit",
            times["to_commit_seconds"],
            "s",
            aim=AIM_SECONDS,
            must=MUST_SECONDS,
            note=f"no record that arrived in that time waited longer than {times['longest_wait_seconds']:.1f} s",
        )
        for name, times in answer.items()
    ]
