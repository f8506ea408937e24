"""Every metric of streampulse, as the code has it: name, type, labels, help, and the service whose scrape shows it."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from streampulse.core.metrics import KnownGauge
from streampulse.core.settings import KafkaSettings

#: The modules that hold metric objects, by the service whose scrape shows them.
MODULES: Final[dict[str, tuple[str, ...]]] = {
    "job": ("streampulse.job.metrics",),
    "generator": ("streampulse.generator.command",),
    "api": (
        "streampulse.api.observe",
        "streampulse.api.guard",
        "streampulse.api.answers",
        "streampulse.api.live.readers",
        "streampulse.api.database",
        "streampulse.api.snapshot",
    ),
    "probe": ("streampulse.probe.metrics", "streampulse.probe.pipeline"),
}

#: What each type adds to a family's name in the scrape.
_SUFFIXES: Final[dict[str, tuple[str, ...]]] = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}


@dataclass(frozen=True)
class Metric:
    """One metric of streampulse.

    :param name: of the family, a counter's with ``_total``.
    :param kind: counter, gauge or histogram.
    :param service: whose scrape shows it.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    service: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names that its samples have in the scrape."""
        base = self.name.removesuffix("_total") if self.kind == "counter" else self.name
        return tuple(f"{base}{suffix}" for suffix in _SUFFIXES[self.kind])


def catalogue() -> tuple[Metric, ...]:
    """Return every metric of streampulse, by service and name."""
    found = {
        metric.name: metric
        for service, modules in MODULES.items()
        for name in modules
        for metric in _of_module(importlib.import_module(name), service)
    }
    order = list(MODULES)
    return tuple(sorted(found.values(), key=lambda metric: (order.index(metric.service), metric.name)))


def _of_module(module: ModuleType, service: str) -> Iterator[Metric]:
    for value in vars(module).values():
        if isinstance(value, MetricWrapperBase):
            (family,) = value.describe()
            yield _metric(family, tuple(value._labelnames), service)
        elif isinstance(value, KnownGauge):
            for family in value.collect():
                yield _metric(family, _labels(family), service)
    for collector in _collectors(module.__name__):
        for family in collector.collect():
            yield _metric(family, _labels(family), service)


def _collectors(module: str) -> Iterator[Collector]:
    """Yield the collectors that a service makes as it starts, with nothing to tell yet."""
    kafka = KafkaSettings(bootstrap_servers="-", topic="-", dlq_topic="-")
    if module == "streampulse.generator.command":
        from streampulse.generator import command
        from streampulse.generator.send import Sender

        yield command.SenderCollector(Sender(kafka), rate=1.0)
    elif module == "streampulse.probe.pipeline":
        from streampulse.probe import ledger, pipeline, topic

        readings = ledger.LatestReading()
        reader = pipeline.TopicReader(topic.Topic(kafka, 1.0), readings, lambda: None, interval=1.0, patience=1.0)
        yield pipeline.Figures(readings, reader, interval=1.0)


def _labels(family: Family) -> tuple[str, ...]:
    # The families for collectors keep the names that they were made with, also while they have no sample.
    return tuple(getattr(family, "_labelnames", ()))


def _metric(family: Family, labels: tuple[str, ...], service: str) -> Metric:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return Metric(name, family.type, labels, family.documentation, service)
