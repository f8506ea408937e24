"""Gauges without a sample while their value is not known."""

import math

from prometheus_client import CollectorRegistry, generate_latest

from streampulse.core.metrics import KnownGauge


def test_a_gauge_has_a_sample_only_while_its_value_is_known() -> None:
    registry = CollectorRegistry()
    gauge = KnownGauge("streampulse_test_seconds", "A test's.", registry)
    assert registry.get_sample_value("streampulse_test_seconds") is None
    for known, unknown in ((0, None), (1.5, math.nan), (3, math.inf)):
        gauge.set(known)
        assert registry.get_sample_value("streampulse_test_seconds") == known
        gauge.set(unknown)
        assert registry.get_sample_value("streampulse_test_seconds") is None
    # The scrape keeps the type.
    assert b"# TYPE streampulse_test_seconds gauge\n" in generate_latest(registry)
