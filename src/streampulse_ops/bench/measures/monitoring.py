"""The cost of monitoring: time until it is up, memory, processor time, and the cost of scrapes in other services."""

from typing import Any, Final

from streampulse_ops import services
from streampulse_ops.bench.figures import Figure, Measured
from streampulse_ops.bench.measures import memory
from streampulse_ops.bench.measures.up import timed
from streampulse_ops.bench.options import Options
from streampulse_ops.bench.place import Place
from streampulse_ops.verbs.up import bring_up

#: Events per second during the memory sample.
RATE: Final = 3_000
#: Seconds of `up --full` on a running base stack.
AIM_SECONDS: Final = 90.0
#: The full stack, in MiB.
AIM_MIB, MUST_MIB = 3_072, 3_584
#: Cores: of monitoring's own processes, and of monitoring in all services.
AIM_CORES: Final = 0.10


def measure(place: Place, options: Options) -> Measured:
    """Sample the base stack at rest, add monitoring, and sample again, at rest and under load."""
    place.renew()
    session, every = place.session, services.on_host(place.host)
    base = [service for service in every if not service.full]
    alone = _processor(place, base, options.seconds)
    changed: list[int] = []

    def full() -> None:
        count, missing = bring_up(session, full=True)
        # A missing optional component has no unit.
        every[:] = [service for service in every if service.name not in {name.lower() for name in missing}]
        changed.append(count)

    first, again = timed(full), timed(full)
    watched = _processor(place, every, options.seconds)
    with session.screen.step("memory") as step:
        step.note(f"{RATE:,} events/s for {options.seconds} s")
        rows = place.measure(["memory", "--rate", str(RATE), "--seconds", str(options.seconds), *memory.units(every)])
        step.done(f"{sum(row['pss_kib'] for row in rows) / 1024:,.0f} MiB in all")
    answer = {
        "up_seconds": first,
        "again_seconds": again,
        "again_changed": changed[-1],
        "cores_alone": alone,
        "cores_watched": watched,
        "memory": rows,
    }
    return Measured(figures(answer), answer)


def _processor(place: Place, chosen: list[services.Service], seconds: int) -> dict[str, float]:
    with place.session.screen.step("processor") as step:
        step.note(f"at rest for {seconds} s")
        found: dict[str, float] = place.measure(["processor", "--seconds", str(seconds), *memory.units(chosen)])
        step.done(f"{sum(found.values()):.2f} cores in all")
    return found


def figures(answer: dict[str, Any]) -> list[Figure]:
    """Return the figures of a result of :func:`measure`."""
    alone, watched = answer["cores_alone"], answer["cores_watched"]
    own = {name: used for name, used in watched.items() if name not in alone}
    total = sum(watched.values()) - sum(alone.values())
    parts = ", ".join(f"{name} {used:.3f}" for name, used in sorted(own.items(), key=lambda item: -item[1]))
    whole, *each = memory.figures(answer["memory"])
    by_service = {figure.name.removeprefix("memory."): figure.value for figure in each}
    sizes = ", ".join(f"{name} {by_service[name]:,.0f}" for name in own if name in by_service)
    return [
        Figure("monitoring.up", "up --full over the base stack", answer["up_seconds"], "s", aim=AIM_SECONDS),
        Figure("monitoring.again", "up --full, nothing to change", answer["again_seconds"], "s"),
        Figure("monitoring.changed", "up --full, changes of a second run", answer["again_changed"], "", must=0),
        Figure("monitoring.cores.own", "monitoring's own processes", sum(own.values()), "cores", AIM_CORES, note=parts),
        Figure(
            "monitoring.cores.total",
            "all that is spent on monitoring",
            total,
            "cores",
            AIM_CORES,
            note="the stack at rest with it, less the stack at rest without it: also what being read costs the others",
        ),
        Figure(
            "monitoring.memory",
            f"memory of the full stack, {RATE:,} events/s",
            whole.value,
            "MiB",
            AIM_MIB,
            MUST_MIB,
            note=f"of monitoring: {sizes}",
        ),
    ]
