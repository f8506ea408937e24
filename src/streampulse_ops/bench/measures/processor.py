"""The processor time that an event costs, at several rates."""

from typing import Any, Final

from streampulse_ops import services
from streampulse_ops.bench.figures import Figure, Measured
from streampulse_ops.bench.measures.memory import units
from streampulse_ops.bench.options import Options
from streampulse_ops.bench.place import Place

#: The services that count: the drivers, and Spark's worker with their executors.
COUNTING: Final = ("job", "spark-worker")


def measure(place: Place, options: Options) -> Measured:
    """Apply each load for a while and sample the processor time of every service."""
    details, found = {}, []
    words = ["--seconds", str(options.seconds), *units(services.base_on_host(place.host))]
    for rate in options.rates:
        with place.session.screen.step("processor") as step:
            step.note(f"{rate:,} events/s for {options.seconds} s")
            cores = place.measure(["processor", "--rate", str(rate), *words])
            found += figures(rate, cores)
            step.done(f"{rate:,} events/s: {sum(cores.values()):.2f} cores in all")
        details[str(rate)] = cores
    return Measured(found, details)


def figures(rate: int, cores: dict[str, Any]) -> list[Figure]:
    """Return the processor time of an event: of counting it, and of all services.

    :param cores: what each service uses.
    """
    parts = ", ".join(f"{name} {used:.2f}" for name, used in sorted(cores.items(), key=lambda item: -item[1]))
    counting = sum(cores[name] for name in COUNTING)
    return [
        Figure(f"processor.{rate}.counting", f"counting an event at {rate:,} events/s", counting * 1e6 / rate, "µs"),
        Figure(
            f"processor.{rate}.total",
            f"all services for an event at {rate:,} events/s",
            sum(cores.values()) * 1e6 / rate,
            "µs",
            note=f"cores: {parts}",
        ),
    ]
