"""The rules of Prometheus: complete, consistent, and about services and limits that exist."""

import re
from pathlib import Path
from typing import Any

import pytest

from streampulse.host.slo import report
from streampulse_ops import services
from streampulse_ops.monitoring import dashboards, rules

ROOT = Path(__file__).parents[3]
VALUES = rules.values()
RULES: list[dict[str, Any]] = [rule for group in rules.groups() for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]


def services_of_units() -> dict[str, str]:
    """Return the pattern of each unit and its service, as the rule UnitFailed has them."""
    (rule,) = [rule for rule in ALERTS if rule["alert"] == "UnitFailed"]
    return dict(re.findall(r'if match "\^(\S+)\$" \$labels.name }}([a-z-]+)', rule["labels"]["service"]))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_an_alert_has_every_annotation_and_is_about_a_service_that_exists(rule: dict[str, Any]) -> None:
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert told["description"].endswith(".")
    assert len(told["summary"]) < 140
    uid = re.fullmatch(r"@GRAFANA@/d/streampulse-([\w-]+)(\?var-host=\{\{ \$labels.host \}\})?", told["dashboard_url"])
    assert uid is not None
    assert uid[1] in dashboards.names()
    if uid[2] and "$value" not in told["summary"]:
        assert "$labels.host" in told["summary"]
    of_a_promise = rule["alert"].endswith("BudgetBurning")
    assert set(rule["labels"]) == {"severity", "service"} | ({"slo"} if of_a_promise else set())
    named = rule["labels"]["service"]
    assert "{{" in named or named in {service.name for service in services.all_services()} | {"host", "slo"}


def test_a_bound_that_a_rule_asks_for_is_a_bucket() -> None:
    from streampulse.api.observe import DURATION
    from streampulse.probe.metrics import API_SECONDS, END_TO_END_SECONDS

    quick, fresh = VALUES.quick_seconds, VALUES.fresh_seconds
    for histogram, limit in ((DURATION, quick), (API_SECONDS, quick), (END_TO_END_SECONDS, fresh)):
        bounds = [str(float(bound)) for bound in histogram._kwargs["buckets"]]
        (family,) = histogram.describe()
        texts = "\n".join(rule["expr"] for rule in RULES)
        (pattern,) = set(re.findall(rf'{family.name}_bucket\{{[^}}]*le=~?"([^"]+)"', texts))
        fits = [bound for bound in bounds if re.fullmatch(pattern.replace("\\\\", "\\"), bound)]
        assert [float(bound) for bound in fits] == [limit]


def test_every_service_has_its_unit_and_its_alert() -> None:
    units, names = services_of_units(), {rule["alert"] for rule in ALERTS}
    alerted = {entry["name"] for entry in services.entries() if "scrape" in entry} | {"postgres"}
    for service in services.all_services():
        unit = service.unit.replace("*", "17")
        assert [each for pattern, each in units.items() if re.fullmatch(pattern, unit)] == [service.name]
        down = "".join(part.capitalize() for part in service.name.split("-")) + "Down"
        assert (down in names) == (service.name in alerted)
    assert not any(re.fullmatch(pattern, "logrotate.service") for pattern in units)


def test_a_service_that_is_away_has_paged_at_the_same_time() -> None:
    (away,) = [rule for rule in ALERTS if rule["alert"] == "ServiceAway"]
    jobs = {job for names in re.findall(r'job=~?"([^"]+)"', away["expr"]) for job in names.split("|")}
    assert jobs == {"kafka", "spark-master", "spark-worker", "job", "api", "edge"}
    (group,) = [group for group in rules.groups() if away in group["rules"]]
    names = [rule["alert"] for rule in group["rules"]]
    for job in jobs:
        down = "".join(part.capitalize() for part in job.split("-")) + "Down"
        (rule,) = [rule for rule in ALERTS if rule["alert"] == down]
        assert (rule["labels"]["severity"], rule["for"]) == ("page", away["for"])
        # Alertmanager has what keeps quiet before it has what is to be quiet.
        assert names.index("ServiceAway") < names.index(down)


def test_every_limit_has_a_reason_and_is_used() -> None:
    """A limit that is typed into a template is a second place for it."""
    text = (ROOT / "prometheus/rules/alerts.yml.j2").read_text(encoding="utf-8")
    for name, limit in vars(VALUES.limits).items():
        assert limit.reason.endswith("."), name
        assert f"limits.{name}" in text
    # Kafka's majority, and a host none of whose targets answers, are no limits.
    for line in re.findall(r"^.*[<>]=?\s*\d.*$", text, re.MULTILINE):
        assert line.lstrip().startswith("#"), line


def test_an_outage_inhibits_for_as_long_as_its_consequences_can_fire() -> None:
    limits, outages = VALUES.limits, VALUES.outages
    assert rules.seconds(outages.just_over.window) > rules.seconds(limits.api_error_rate.window)
    longest = max(
        rules.seconds(each.window) for each in (limits.unit_flapping, limits.probe_failing, limits.batches_slow)
    )
    assert rules.seconds(outages.lately_over.window) > longest
    pages = [rules.seconds(burn.short) for burn in VALUES.burns if burn.severity == "page"]
    assert rules.seconds(outages.recent.window) > max(pages) + 300


def test_prometheus_looks_as_often_as_the_values_say() -> None:
    """Hold times, the time to a page and the dashboards' rates are made for this."""
    often = VALUES.scrape_interval
    prometheus = (ROOT / "prometheus/prometheus.yml.j2").read_text(encoding="utf-8")
    assert re.findall(r"^  (?:scrape|evaluation)_interval: (\S+)$", prometheus, re.MULTILINE) == [often, often]
    datasources = (ROOT / "grafana/provisioning/datasources.yaml.j2").read_text(encoding="utf-8")
    assert re.findall(r"timeInterval: (\S+)", datasources) == [often]
    # Down, seen by the next scrape that times out, held, evaluated, grouped.
    assert 3 * rules.seconds(often) + rules.seconds(VALUES.limits.service_down.hold) + 5 <= 90


def test_the_terminal_shows_the_promises_in_their_order() -> None:
    assert tuple(vars(VALUES.objectives)) == report.ORDER
