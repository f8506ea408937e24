"""The memory of each process under a steady load."""

from collections.abc import Iterable
from typing import Any, Final

from streampulse_ops import services
from streampulse_ops.bench.figures import Figure, Measured
from streampulse_ops.bench.options import Options
from streampulse_ops.bench.place import Place

#: The limit of the whole base stack in MiB, from the README.
AIM_MIB: Final = 2_560


def measure(place: Place, options: Options) -> Measured:
    """Apply a load and sample every process of every service."""
    with place.session.screen.step("memory") as step:
        step.note(f"300 events/s for {options.seconds} s")
        answer = place.measure(["memory", "--seconds", str(options.seconds), *units(services.base_on_host(place.host))])
        found = figures(answer)
        step.done(f"{found[0].value:,.0f} MiB in all")
    return Measured(found, answer)


def units(chosen: Iterable[services.Service]) -> list[str]:
    """Return services as ``streampulse measure`` takes them."""
    return [f"{service.name}={','.join(service.units)}" for service in chosen]


def figures(answer: list[dict[str, Any]]) -> list[Figure]:
    """Return the total, each service's memory, and each process's if a service has several."""
    by_service: dict[str, list[tuple[str, float]]] = {}
    for row in answer:
        by_service.setdefault(row["service"], []).append((row["process"], row["pss_kib"] / 1024))
    total = sum(size for processes in by_service.values() for _, size in processes)
    note = "proportional set size: a page that n processes share counts as 1/n of a page in each"
    made = [Figure("memory.total", "memory of the base stack", total, "MiB", aim=AIM_MIB, note=note)]
    for service, processes in by_service.items():
        largest = ", ".join(f"{process} {size:,.0f}" for process, size in processes[:6])
        more = f" and {len(processes) - 6} more" if len(processes) > 6 else ""
        size = sum(size for _, size in processes)
        made.append(Figure(f"memory.{service}", f"memory of {service}", size, "MiB", note=largest + more))
    return made
