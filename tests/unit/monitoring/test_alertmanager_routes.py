"""Alertmanager's rendered configuration: routes, receivers and inhibitions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from streampulse_ops import services
from streampulse_ops.monitoring import promlint, rules

ROOT = Path(__file__).parents[3]
COMBINATIONS = list(promlint.combinations())
NAMES = {each.name for each in rules.alerts()}


def configuration(given: dict[str, Any]) -> dict[str, Any]:
    return dict(yaml.safe_load(promlint.alertmanager_configuration(ROOT, **given)))


@pytest.mark.parametrize("given", COMBINATIONS, ids=lambda given: "-".join(given) or "none")
def test_receivers_are_those_that_were_asked_for(given: dict[str, Any]) -> None:
    document = configuration(given)
    receivers = {each.pop("name"): each for each in document["receivers"]}
    assert set(receivers) == {"nobody", "deadman", "page", "ticket"}
    assert receivers["nobody"] == {}
    kinds = {
        "alertmanager_webhook_url": "webhook_configs",
        "alertmanager_slack_url": "slack_configs",
        "alertmanager_email": "email_configs",
    }
    expected = {kind for name, kind in kinds.items() if name in given}
    assert set(receivers["page"]) == set(receivers["ticket"]) == expected
    assert set(receivers["deadman"]) == ({"webhook_configs"} if "alertmanager_deadman_url" in given else set())
    assert all(each["send_resolved"] for name in expected for each in receivers["page"][name])
    if "alertmanager_webhook_url" in given:
        assert receivers["page"]["webhook_configs"][0]["url"] == given["alertmanager_webhook_url"]
    assert ("smtp_smarthost" in document["global"]) == ("alertmanager_email" in given)


def test_a_password_of_any_characters_arrives_as_it_is() -> None:
    made = configuration({"alertmanager_email": promlint.RECEIVERS["alertmanager_email"]})
    assert made["global"]["smtp_auth_password"] == promlint.RECEIVERS["alertmanager_email"]["password"]
    assert made["global"]["smtp_require_tls"] is True


def matchers(texts: list[str]) -> Any:
    for text in texts:
        name, operator, value = re.fullmatch(r'(\w+)(=~|!=|=)"([^"]*)"', text).groups()  # type: ignore[union-attr]
        yield name, operator, value


def test_inhibition_names_alerts_and_objectives_that_there_are() -> None:
    slos = set(vars(rules.values().objectives))
    for rule in configuration({})["inhibit_rules"]:
        for name, _, value in matchers([*rule["source_matchers"], *rule["target_matchers"]]):
            about = {service.name for service in services.all_services()}
            known = {"alertname": NAMES, "slo": slos, "severity": {"page", "ticket", "none"}}
            known |= {"service": about | {"host"}, "cause": about}
            for each in value.split("|"):
                assert any(re.fullmatch(each, one) for one in known[name]), each


def test_every_cause_keeps_its_budgets_quiet_while_it_lasts_and_a_while_after() -> None:
    now: dict[str, str] = {}
    later: dict[str, str] = {}
    for rule in configuration({})["inhibit_rules"]:
        sources = {name: value for name, _, value in matchers(rule["source_matchers"])}
        targets = {name: value for name, _, value in matchers(rule["target_matchers"])}
        if targets.get("alertname") == ".+BudgetBurning" and "slo" in targets:
            if "cause" in sources:
                assert sources["alertname"] == "RecentOutage"
                later |= dict.fromkeys(sources["cause"].split("|"), targets["slo"])
            else:
                causes = set(sources["alertname"].split("|"))
                now |= dict.fromkeys(sources["service"].split("|"), targets["slo"])
    assert now == later
    assert set(now) == {"kafka", "spark-master", "spark-worker", "job", "api", "postgres"}
    # The rule remembers the causes that the inhibition names.
    (recent,) = [rule for group in rules.groups() for rule in group["rules"] if rule.get("alert") == "RecentOutage"]
    assert causes == set(re.findall(r'alertname=~"([^"]+)"', recent["expr"])[0].split("|"))


def test_nothing_keeps_the_dead_mans_switch_quiet() -> None:
    for rule in configuration({})["inhibit_rules"]:
        targets = {name: (operator, value) for name, operator, value in matchers(rule["target_matchers"])}
        operator, value = targets["alertname"]
        if operator == "!=":
            assert "host" in rule["equal"], "an alert without a host has no neighbours"
        else:
            assert not re.fullmatch(value, "Watchdog")


def test_a_mail_server_without_a_log_in() -> None:
    email = {"to": "a@example.org", "from": "b@example.org", "smarthost": "127.0.0.1:25", "require_tls": False}
    made = configuration({"alertmanager_email": email})["global"]
    assert made["smtp_require_tls"] is False
    assert "smtp_auth_username" not in made
