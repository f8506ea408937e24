"""Every alert has a test of Prometheus' own: it fires, after its time and not before, and it ends."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from streampulse_ops.monitoring import alerts
from streampulse_ops.monitoring.model import Alert

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "prometheus/tests").glob("*.yml"))
#: Each test with how often rules are evaluated in it.
TESTS: list[dict[str, Any]] = [
    {**test, "step": document["evaluation_interval"]}
    for document in (yaml.safe_load(file.read_text(encoding="utf-8")) for file in FILES)
    for test in document["tests"]
]


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([smh])", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def looks(name: str, severity: str) -> list[list[tuple[float, bool]]]:
    """Return for each test when it looks at an alert, in evaluations, and whether that fires then."""
    found = []
    for test in TESTS:
        seen = [
            (
                seconds(look["eval_time"]) / seconds(test["step"]),
                any(each["exp_labels"]["severity"] == severity for each in look["exp_alerts"]),
            )
            for look in test.get("alert_rule_test", ())
            if look["alertname"] == name
        ]
        if seen:
            found.append(sorted(seen))
    return found


def case(alert: Alert) -> str:
    return f"{alert.name}-{alert.severity}"


@pytest.mark.parametrize("alert", alerts.everything(), ids=case)
def test_every_alert_is_tested(alert: Alert) -> None:
    tests = looks(alert.name, alert.severity)
    assert any(fires for test in tests for _, fires in test), "no test sees it fire"
    if alert.name == "Watchdog":
        return  # which always does
    whole = [test for test in tests if any(fires for _, fires in test) and not test[0][1] and not test[-1][1]]
    assert whole, "no test sees it quiet, then firing, then quiet again"


@pytest.mark.parametrize("alert", [each for each in alerts.everything() if each.hold_seconds], ids=case)
def test_an_alert_is_seen_quiet_just_before_it_fires(alert: Alert) -> None:
    steps = [
        later - earlier
        for test in looks(alert.name, alert.severity)
        for (earlier, before), (later, after) in itertools.pairwise(test)
        if after and not before
    ]
    assert min(steps) == 1


def test_what_is_expected_is_written_with_everything_that_people_get() -> None:
    for test in TESTS:
        for look in test.get("alert_rule_test", ()):
            for expected in look["exp_alerts"]:
                assert set(expected["exp_annotations"]) == {"summary", "description", "runbook_url", "dashboard_url"}


def test_no_test_is_about_an_alert_that_there_is_not() -> None:
    named = {look["alertname"] for test in TESTS for look in test.get("alert_rule_test", ())}
    assert named == {alert.name for alert in alerts.everything()}
