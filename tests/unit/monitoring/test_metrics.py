"""The catalogue of our metrics sees all that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from streampulse_ops.monitoring import metrics

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "src/streampulse"
#: Whose names begin like a metric's and are none: databases' roles, paths, Ansible's variables.
NAMES = re.compile(r'"(streampulse_(?:job|api|generator|probe|pipeline)_[a-z_]+)"')


def test_every_name_in_the_code_is_in_the_catalogue() -> None:
    known = {metric.name.removesuffix("_total") for metric in metrics.catalogue()}
    for file in SOURCES.rglob("*.py"):
        for name in NAMES.findall(file.read_text(encoding="utf-8")):
            assert name in known, f"{file}: add its module to MODULES of monitoring/metrics.py"


def test_every_module_that_makes_metrics_is_looked_at() -> None:
    listed = {name for names in metrics.MODULES.values() for name in names}
    makes = re.compile(r"\b(?:Counter|Gauge|Histogram|Summary|KnownGauge|\w+MetricFamily)\(")
    for file in SOURCES.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if "prometheus_client" not in text or not makes.search(text) or file.parts[-2:] == ("core", "metrics.py"):
            continue
        module = ".".join(file.relative_to(SOURCES.parent).with_suffix("").parts)
        assert module in listed


def test_a_metric_has_a_type_a_sentence_and_a_name_after_prometheus_conventions() -> None:
    found = metrics.catalogue()
    assert len(found) > 40
    for metric in found:
        assert metric.kind in {"counter", "gauge", "histogram"}
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert metric.help.endswith("."), metric.name
        assert re.fullmatch(r"streampulse_(job|generator|api|probe|pipeline)_[a-z_]+", metric.name)


def test_what_collectors_make_is_in_it_with_labels() -> None:
    by_name = {metric.name: metric for metric in metrics.catalogue()}
    assert by_name["streampulse_generator_events_sent_total"].service == "generator"
    assert by_name["streampulse_pipeline_end_offset"].labels == ("partition",)
    assert by_name["streampulse_pipeline_dead_letters_total"].kind == "counter"
    assert by_name["streampulse_probe_events_total"].labels == ("outcome",)
    assert by_name["streampulse_job_batch_phase_seconds"].series[0] == "streampulse_job_batch_phase_seconds_bucket"
