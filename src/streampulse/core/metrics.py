"""Metrics: the scrape endpoint of a service, and gauges whose value is not always known."""

import math

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streampulse.core.errors import OperatorError


def serve(host: str, port: int, registry: CollectorRegistry = REGISTRY) -> None:
    """Serve the metrics of this process from a thread of its own.

    :raises OperatorError: the port cannot be opened.
    """
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        raise OperatorError(
            f"the metrics port {host}:{port} cannot be opened ({error.strerror}): "
            f"see who has it with `ss -ltnp sport = :{port}`, or set another"
        ) from None


class KnownGauge(Collector):
    """A gauge that has a sample only while its value is known. The library's own gauge starts with a sample of 0.

    :param name: name of the metric, with its unit.
    :param documentation: help text, one sentence.
    """

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry = REGISTRY) -> None:
        self._name = name
        self._documentation = documentation
        self._value: float | None = None
        registry.register(self)

    def set(self, value: float | None) -> None:
        """Set the value. None, infinity and NaN mean that it is not known."""
        self._value = value if value is not None and math.isfinite(value) else None

    def collect(self) -> list[Metric]:
        """Return the gauge, with its sample or without."""
        return [GaugeMetricFamily(self._name, self._documentation, self._value)]
