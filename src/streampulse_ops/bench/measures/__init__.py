"""The measurements by name."""

from collections.abc import Callable, Mapping
from typing import Final

from streampulse_ops.bench.figures import Measured
from streampulse_ops.bench.measures import (
    api,
    catch_up,
    growth,
    latency,
    memory,
    monitoring,
    processor,
    recovery,
    start,
    up,
)
from streampulse_ops.bench.options import Options
from streampulse_ops.bench.place import Place

#: Takes a running stack and leaves a running stack.
Measure = Callable[[Place, Options], Measured]

MEASURES: Final[Mapping[str, Measure]] = {
    "memory": memory.measure,
    "processor": processor.measure,
    "api": api.measure,
    "start": start.measure,
    "recovery": recovery.measure,
    "latency": latency.measure,
    "catch-up": catch_up.measure,
    "growth": growth.measure,
    "up": up.measure,
    "monitoring": monitoring.measure,
}
