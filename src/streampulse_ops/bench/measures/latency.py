"""Latency from an event to its row, at several rates."""

from typing import Any, Final

from streampulse_ops.bench.figures import Figure, Measured
from streampulse_ops.bench.options import Options
from streampulse_ops.bench.place import Place

#: Maximum latency at every rate, in seconds.
MUST_P95: Final = 2.5
#: The rate of the targets, and the targets in seconds.
AIMED_RATE, AIM_P50, AIM_P95 = 3_000, 0.8, 1.5
#: Minimum sent fraction of the requested rate; below it the note says so.
ENOUGH_SENT: Final = 0.98


def measure(place: Place, options: Options) -> Measured:
    """Apply each load for a while."""
    details, found = {}, []
    for rate in options.rates:
        with place.session.screen.step("latency") as step:
            step.note(f"{rate:,} events/s for {options.seconds} s")
            answer = place.measure(["latency", "--rate", str(rate), "--seconds", str(options.seconds)])
            times = answer["from_creation"]
            step.done(f"{rate:,} events/s: p50 {times['p50']:.2f} s, p95 {times['p95']:.2f} s")
        details[str(rate)] = answer
        found += figures(rate, answer)
    return Measured(found, details)


def figures(rate: int, answer: dict[str, Any]) -> list[Figure]:
    """Return the figures of one rate."""
    times, sent = answer["from_creation"], answer["sent_per_second"]
    note = f"{times['count']:,} events, the slowest {times['max']:.2f} s"
    if sent < ENOUGH_SENT * rate:
        note += f"; only {sent:,.0f} events/s were sent"
    aimed = rate == AIMED_RATE
    limits: dict[str, tuple[float | None, float | None]] = {
        "p50": (AIM_P50 if aimed else None, None),
        "p95": (AIM_P95 if aimed else None, MUST_P95),
        "p99": (None, None),
    }
    return [
        Figure(
            f"latency.{rate}.{name}",
            f"event to row at {rate:,} events/s, {name}",
            times[name],
            "s",
            aim=aim,
            must=must,
            note=note if name == "p50" else "",
        )
        for name, (aim, must) in limits.items()
    ]
