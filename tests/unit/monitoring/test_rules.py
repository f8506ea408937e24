"""The rules of Prometheus: what is committed is what the code says, complete, consistent, and about what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from promql_names import metric_names

from streampulse.core import limits as values
from streampulse_ops import services
from streampulse_ops.monitoring import alerts, dashboards, metrics, rules
from streampulse_ops.monitoring.model import Alert, Recorded

ROOT = Path(__file__).parents[3]
FILES = {name: yaml.safe_load((ROOT / name).read_text(encoding="utf-8")) for name in rules.FILES}
RULES: list[dict[str, Any]] = [rule for file in FILES.values() for group in file["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
#: The names that the environments' own programs, dashboards and people rely on.
PAGES = {
    *("HostDown", "KafkaDown", "JobDown", "PostgresDown", "ApiDown", "SparkMasterDown", "SparkWorkerDown"),
    *("PipelineStalled", "ApiErrorRateHigh", "DiskAlmostFull", "KafkaPartitionsOffline", "KafkaUnderReplicated"),
    *("FreshnessBudgetBurning", "CorrectnessBudgetBurning", "AvailabilityBudgetBurning", "LatencyBudgetBurning"),
    "CompletenessBudgetBurning",
}
TICKETS = {
    *("GeneratorDown", "ProbeDown", "ProbeFailing", "NodeExporterDown", "PostgresExporterDown", "PrometheusDown"),
    *("AlertmanagerDown", "GrafanaDown", "ClockOffset", "UnitFailed", "UnitFlapping", "DeadLettersGrowing"),
    *("DeadLetterBacklog", "SparkNoExecutor", "BatchesSlow", "PostgresConnectionsHigh", "PostgresQueriesSlow"),
    *("PostgresBloat", "MemoryLow", "JobStateGrowing", "RuleEvaluationFailing", "NotificationsFailing"),
    "TargetMissing",
}


def name_of(rule: dict[str, Any]) -> str:
    return f"{rule['alert']}-{rule['labels']['severity']}"


every_alert = pytest.mark.parametrize("rule", ALERTS, ids=name_of)


def test_yaml_gives_back_what_the_code_says() -> None:
    for name, file in FILES.items():
        groups = rules.FILES[name]()
        assert [group["name"] for group in file["groups"]] == [group.name for group in groups]
        for seen, meant in zip(file["groups"], groups, strict=True):
            for rule, made in zip(seen["rules"], meant.rules, strict=True):
                assert rule["expr"].rstrip("\n") == made.expr
                if isinstance(made, Recorded):
                    assert (rule["record"], rule.get("labels", {})) == (made.record, dict(made.labels))
                else:
                    assert (rule["alert"], rule["labels"]) == (made.name, rules.alert_labels(made))
                    assert rule["annotations"] == rules.alert_annotations(made)
                    assert rule.get("for", "0s") == values.span(made.hold_seconds)


def test_the_alerts_are_those_that_there_are() -> None:
    by_severity: dict[str, set[str]] = {}
    for rule in ALERTS:
        by_severity.setdefault(rule["labels"]["severity"], set()).add(rule["alert"])
    budgets = {f"{slo.name.capitalize()}BudgetBurning" for slo in values.OBJECTIVES}
    nobodys = {"Watchdog", "ServiceAway", "OutageJustOver", "OutageLatelyOver", "RecentOutage"}
    assert by_severity == {"page": PAGES, "ticket": TICKETS | budgets, "none": nobodys}


def test_no_two_rules_give_the_same_alert() -> None:
    names = [name_of(rule) for rule in ALERTS]
    assert len(names) == len(set(names))


def test_names_of_groups_are_unique() -> None:
    names = [group["name"] for file in FILES.values() for group in file["groups"]]
    assert len(names) == len(set(names))


def test_a_group_is_evaluated_often_enough_to_have_a_value_at_any_time() -> None:
    # Prometheus looks back five minutes; a rule that is evaluated less often has gaps.
    for made in (group for make in rules.FILES.values() for group in make()):
        assert made.interval_seconds <= 2 * values.MINUTE


@every_alert
def test_an_alert_says_what_is_needed(rule: dict[str, Any]) -> None:
    assert set(rule["labels"]) <= {"severity", "service", "slo"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert rule["annotations"]["description"].endswith(".")
    assert not rule["annotations"]["summary"].endswith(".")
    assert len(rule["annotations"]["summary"]) < 140
    uid = re.fullmatch(
        r"@GRAFANA@/d/([\w-]+)(\?var-host=\{\{ \$labels.host \}\})?", rule["annotations"]["dashboard_url"]
    )
    assert uid is not None
    assert uid[1] in {f"streampulse-{name}" for name in dashboards.panels.DASHBOARDS}


@every_alert
def test_an_alert_is_about_a_service_that_there_is(rule: dict[str, Any]) -> None:
    known = {service.name for service in services.all_services()} | {"host", "slo"}
    # Those that come with monitoring are named by their scrape job.
    known |= set(alerts.UNITS.values())
    named = rule["labels"]["service"]
    if "{{" in named:
        over = {"OutageJustOver", "OutageLatelyOver"}
        assert rule["alert"] in {"UnitFailed", "UnitFlapping", "TargetMissing", "ServiceAway"} | over
    else:
        assert named in known
    assert ("slo" in rule["labels"]) == rule["alert"].endswith("BudgetBurning")


@every_alert
def test_an_alert_with_a_value_shows_it(rule: dict[str, Any]) -> None:
    told = rule["annotations"]["summary"]
    no_value = {"UnitFailed", "SparkNoExecutor", "TargetMissing"}
    if rule["labels"]["severity"] == "none":
        return
    if not rule["alert"].endswith("Down") and rule["alert"] not in no_value:
        assert "$value" in told
    if "var-host" in rule["annotations"]["dashboard_url"] and "$value" not in told:
        assert "$labels.host" in told


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.get("alert") or rule["record"]))
def test_a_rule_uses_metrics_that_there_are(rule: dict[str, Any]) -> None:
    ours = {series for metric in metrics.catalogue() for series in metric.series}
    named = metric_names(rule["expr"])
    assert named <= ours | RECORDED | set(metrics.FOREIGN)
    assert named or rule["expr"].startswith("vector(")


def test_no_foreign_metric_is_listed_that_no_rule_uses() -> None:
    assert set(metrics.FOREIGN) <= {name for rule in RULES for name in metric_names(rule["expr"])}


@pytest.mark.parametrize("metric", metrics.catalogue(), ids=lambda metric: metric.name)
def test_labels_that_a_rule_compares_are_those_of_the_metric(metric: metrics.Metric) -> None:
    allowed = {*metric.labels, "le"} if metric.kind == "histogram" else {*metric.labels}
    for rule in RULES:
        for name in metric.series:
            for matchers in re.findall(rf"(?<![\w:]){name}\{{([^}}]*)\}}", rule["expr"]):
                assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= allowed


def test_a_bound_that_a_rule_asks_for_is_a_bucket() -> None:
    from streampulse.api.observe import DURATION
    from streampulse.probe.metrics import API_SECONDS, END_TO_END_SECONDS

    quick, fresh = values.QUICK_SECONDS, values.FRESH_SECONDS
    for histogram, limit in ((DURATION, quick), (API_SECONDS, quick), (END_TO_END_SECONDS, fresh)):
        bounds = [str(float(bound)) for bound in histogram._kwargs["buckets"]]
        (family,) = histogram.describe()
        asked = {
            match
            for rule in RULES
            for match in re.findall(rf'{family.name}_bucket\{{[^}}]*le=~?"([^"]+)"', rule["expr"])
        }
        assert asked, family.name
        for pattern in asked:
            fits = [bound for bound in bounds if re.fullmatch(pattern.replace("\\\\", "\\"), bound)]
            assert [float(bound) for bound in fits] == [limit]


def test_every_unit_of_a_service_is_known_by_the_service() -> None:
    for service in services.all_services():
        unit = service.unit.replace("*", "17")
        assert alerts.service_of_unit(unit) == service.name, unit
    assert alerts.service_of_unit("logrotate.service") == "host"


def test_every_service_has_an_alert_that_says_that_it_is_down() -> None:
    names = {rule["alert"] for rule in ALERTS}
    for name in set(alerts.UNITS.values()):
        assert "".join(part.capitalize() for part in name.split("-")) + "Down" in names


def test_every_objective_is_recorded_over_every_window() -> None:
    windows = {"5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d"}
    assert {f"slo:error_ratio:rate{window}" for window in windows} <= RECORDED
    assert {"slo:objective:ratio", "slo:error_budget_remaining:ratio30d"} <= RECORDED
    assert {slo.name for slo in values.OBJECTIVES} == {
        "freshness",
        "correctness",
        "availability",
        "latency",
        "completeness",
    }


def test_every_alert_that_pages_for_a_cause_keeps_its_budgets_quiet() -> None:
    assert set(alerts.CAUSES) <= PAGES | {"ServiceAway"}
    assert not any(name.endswith("BudgetBurning") for name in alerts.CAUSES)


def test_a_service_that_is_away_has_paged_at_the_same_time() -> None:
    (away,) = [rule for rule in ALERTS if rule["alert"] == "ServiceAway"]
    jobs = {job for names in re.findall(r'job=~?"([^"]+)"', away["expr"]) for job in names.split("|")}
    assert jobs == {"kafka", "spark-master", "spark-worker", "job", "api"}
    (group,) = [group for file in FILES.values() for group in file["groups"] if away in group["rules"]]
    names = [rule["alert"] for rule in group["rules"]]
    for job in jobs:
        down = "".join(part.capitalize() for part in job.split("-")) + "Down"
        (rule,) = [rule for rule in ALERTS if rule["alert"] == down]
        assert (rule["labels"]["severity"], rule["for"]) == ("page", away["for"])
        # Alertmanager has what keeps quiet before it has what is to be quiet.
        assert names.index("ServiceAway") < names.index(down)


def test_every_threshold_has_a_reason_and_is_used() -> None:
    source = (ROOT / "src/streampulse_ops/monitoring/alerts.py").read_text(encoding="utf-8")
    for name, value in vars(values).items():
        if isinstance(value, values.Threshold):
            assert value.reason.endswith("."), name
            assert f"values.{name}" in source, f"{name} is in nobody's rule"


def test_rules_name_no_number_that_is_not_a_value() -> None:
    """A limit that is typed into an expression is a second place for it."""
    source = (ROOT / "src/streampulse_ops/monitoring/alerts.py").read_text(encoding="utf-8")
    assert re.findall(r"[<>]=?\s*\d+\.?\d*(?![\d\w\]\-}])", source.split('"""', 2)[2]) == []


def test_whoever_looks_knows_how_often_prometheus_does() -> None:
    """The rules' hold times, the time to a page and the dashboards' rates are made for this."""
    often = f"{values.SCRAPE_SECONDS}s"
    prometheus = (ROOT / "prometheus/prometheus.yml.j2").read_text(encoding="utf-8")
    assert re.findall(r"^  (?:scrape|evaluation)_interval: (\S+)$", prometheus, re.MULTILINE) == [often, often]
    datasources = (ROOT / "grafana/provisioning/datasources.yaml.j2").read_text(encoding="utf-8")
    assert re.findall(r"timeInterval: (\S+)", datasources) == [often]


def test_weights_make_one_budget_of_two() -> None:
    slo = values.CORRECTNESS
    assert [slo.weight(sli) for sli in slo.indicators] == [1, 2]
    for even in (values.AVAILABILITY, values.LATENCY):
        assert [even.weight(sli) for sli in even.indicators] == [1, 1]


@pytest.mark.parametrize(
    ("seconds", "short", "long"),
    [
        (40, "40s", "40 s"),
        (120, "2m", "2 min"),
        (3600, "1h", "1 h"),
        (86400, "1d", "1 day"),
        (2592000, "30d", "30 days"),
    ],
)
def test_spans_are_written_as_each_reader_has_them(seconds: int, short: str, long: str) -> None:
    assert (values.span(seconds), values.words(seconds)) == (short, long)


def test_everything_is_every_alert() -> None:
    assert sorted(
        name_of({"alert": each.name, "labels": {"severity": each.severity}}) for each in alerts.everything()
    ) == (sorted(map(name_of, ALERTS)))
    assert all(isinstance(each, Alert) for each in alerts.everything())
