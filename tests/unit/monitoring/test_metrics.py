"""The catalogue of streampulse's metrics is complete, and rules and dashboards read only metrics that exist."""

import re
from pathlib import Path

from dashboard_queries import queries
from promql_names import metric_names

from streampulse_ops.monitoring import metrics, rules

SOURCES = Path(__file__).parents[3] / "src/streampulse"
#: Databases' roles, paths and Ansible's variables have names that begin differently.
NAMES = re.compile(r'"(streampulse_(?:job|api|generator|probe|pipeline)_[a-z_]+)"')
OURS = {series: metric for metric in metrics.catalogue() for series in metric.series}
PANELS = [query.text for query in queries() if query.language == "promql"]
RULES = [rule["expr"] for group in rules.groups() for rule in group["rules"]]
#: The end-to-end tests ask a machine for every query of a panel, so a metric of another program exists if a panel
#: shows it. No panel shows these.
IN_RULES_ONLY = {
    "node_systemd_units",
    "node_timex_offset_seconds",
    "node_timex_sync_status",
    "prometheus_notifications_errors_total",
}


def test_every_name_in_the_code_is_in_the_catalogue() -> None:
    known = {metric.name.removesuffix("_total") for metric in metrics.catalogue()}
    for file in SOURCES.rglob("*.py"):
        for name in NAMES.findall(file.read_text(encoding="utf-8")):
            assert name in known, f"{file}: add its module to MODULES of monitoring/metrics.py"


def test_a_metric_has_a_type_a_sentence_and_a_name_after_prometheus_conventions() -> None:
    for metric in metrics.catalogue():
        assert metric.kind in {"counter", "gauge", "histogram"}
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert metric.help.endswith("."), metric.name
        assert re.fullmatch(r"streampulse_(job|generator|api|probe|pipeline)_[a-z_]+", metric.name)


def test_a_rule_reads_only_metrics_that_exist() -> None:
    shown = {name for text in PANELS for name in metric_names(text)} - {"up", "ALERTS"}
    read = {name for text in RULES for name in metric_names(text)} - {"up", "ALERTS"}
    assert read - set(OURS) - rules.recorded() - shown == IN_RULES_ONLY


def test_a_panel_reads_only_metrics_of_ours_that_exist() -> None:
    for text in PANELS:
        named = {name for name in metric_names(text) if re.match(r"streampulse_|\w+:", name)}
        assert named <= set(OURS) | rules.recorded(), text


def test_a_query_chooses_by_labels_that_exist() -> None:
    for text in (*PANELS, *RULES):
        for name in metric_names(text) & set(OURS):
            labels = {*OURS[name].labels, "host", "job"} | ({"le"} if OURS[name].kind == "histogram" else set())
            for matchers in re.findall(rf"(?<![\w:]){name}\{{([^}}]*)\}}", text):
                assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= labels, f"{name} in {text}"


def test_every_metric_of_ours_is_shown_somewhere() -> None:
    shown = {name for text in PANELS for name in metric_names(text)}
    assert [metric.name for metric in metrics.catalogue() if not shown & set(metric.series)] == []
