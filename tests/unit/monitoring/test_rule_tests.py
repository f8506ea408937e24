"""Every alert has a test of Prometheus' own: it fires, after its time and not before, and it ends."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from streampulse_ops.monitoring import rules

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "prometheus/tests").glob("*.yml"))
#: Each test with how often rules are evaluated in it.
TESTS: list[dict[str, Any]] = [
    {**test, "step": document["evaluation_interval"]}
    for document in (yaml.safe_load(file.read_text(encoding="utf-8")) for file in FILES)
    for test in document["tests"]
]


def looks(name: str, severity: str) -> list[list[tuple[float, bool]]]:
    """Return for each test when it looks at an alert, in evaluations, and whether that fires then."""
    found = []
    for test in TESTS:
        seen = [
            (
                rules.seconds(look["eval_time"]) / rules.seconds(test["step"]),
                any(each["exp_labels"]["severity"] == severity for each in look["exp_alerts"]),
            )
            for look in test.get("alert_rule_test", ())
            if look["alertname"] == name
        ]
        if seen:
            found.append(sorted(seen))
    return found


ALERTS = {
    (rule["alert"], rule["labels"]["severity"]): "for" in rule
    for group in rules.groups()
    for rule in group["rules"]
    if "alert" in rule
}


@pytest.mark.parametrize(("name", "severity"), ALERTS)
def test_every_alert_is_seen_quiet_then_firing_then_quiet_again(name: str, severity: str) -> None:
    tests = looks(name, severity)
    if name == "Watchdog":  # always fires
        assert any(fires for test in tests for _, fires in test)
        return
    assert [test for test in tests if any(fires for _, fires in test) and not test[0][1] and not test[-1][1]]
    if ALERTS[name, severity]:
        steps = [
            later - earlier
            for test in tests
            for (earlier, before), (later, after) in itertools.pairwise(test)
            if after and not before
        ]
        assert min(steps) == 1, "no test sees it quiet just before it fires"


def test_no_test_is_about_an_alert_that_there_is_not() -> None:
    named = {look["alertname"] for test in TESTS for look in test.get("alert_rule_test", ())}
    assert named == {name for name, _ in ALERTS}
