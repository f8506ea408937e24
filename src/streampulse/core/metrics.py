"""Gauges whose value is not always known."""

from __future__ import annotations

import math

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class KnownGauge(Collector):
    """A gauge that has a sample only while its value is known, where the library's own begins with 0.

    :param name: of the metric, with its unit.
    :param documentation: what it is, in one sentence.
    """

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry = REGISTRY) -> None:
        self._name = name
        self._documentation = documentation
        self._value: float | None = None
        registry.register(self)

    def set(self, value: float | None) -> None:
        """Say what the value is; nothing, or what is no number, means that it is not known."""
        self._value = value if value is not None and math.isfinite(value) else None

    def collect(self) -> list[Metric]:
        """Return the gauge, with its sample or without."""
        return [GaugeMetricFamily(self._name, self._documentation, self._value)]
