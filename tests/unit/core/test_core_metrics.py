"""The scrape endpoint, and gauges without a sample while their value is not known."""

from __future__ import annotations

import math
import socket

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from streampulse.core import metrics
from streampulse.core.errors import OperatorError
from streampulse.core.metrics import KnownGauge


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def gauge(registry: CollectorRegistry) -> KnownGauge:
    return KnownGauge("streampulse_test_seconds", "A test's.", registry)


def test_there_is_no_sample_before_the_first_value(registry: CollectorRegistry, gauge: KnownGauge) -> None:
    assert registry.get_sample_value("streampulse_test_seconds") is None
    gauge.set(0)
    assert registry.get_sample_value("streampulse_test_seconds") == 0
    gauge.set(1.5)
    assert registry.get_sample_value("streampulse_test_seconds") == 1.5


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf])
def test_an_unknown_value_removes_the_sample(
    registry: CollectorRegistry, gauge: KnownGauge, unknown: float | None
) -> None:
    gauge.set(3)
    gauge.set(unknown)
    assert registry.get_sample_value("streampulse_test_seconds") is None
    # The scrape keeps the type.
    assert b"# TYPE streampulse_test_seconds gauge\n" in generate_latest(registry)


def test_a_port_that_is_taken_is_an_operators_error(registry: CollectorRegistry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OperatorError, match=rf"127\.0\.0\.1:{port} cannot be opened.*ss -ltnp sport = :{port}"):
            metrics.serve("127.0.0.1", port, registry)
