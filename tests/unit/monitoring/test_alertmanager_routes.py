"""Alertmanager's rendered configuration: routes, receivers and inhibitions."""

import re
from pathlib import Path
from typing import Any

import yaml

from streampulse_ops import services
from streampulse_ops.monitoring import promlint, rules

ROOT = Path(__file__).parents[3]
NAMES = {each.name for each in rules.alerts()}


def configuration(given: dict[str, Any]) -> dict[str, Any]:
    return dict(yaml.safe_load(promlint.alertmanager_configuration(ROOT, **given)))


def test_receivers_are_those_that_were_asked_for() -> None:
    def kinds(**given: Any) -> dict[str, set[str]]:
        receivers = {each.pop("name"): set(each) for each in configuration(given)["receivers"]}
        assert receivers.pop("nobody") == set()
        return receivers

    none: dict[str, set[str]] = {"deadman": set(), "page": set(), "ticket": set(), "info": set()}
    assert kinds() == none
    for name, kind in (("webhook_url", "webhook"), ("slack_url", "slack"), ("email", "email")):
        shared = {f"{kind}_configs"}
        given = {f"alertmanager_{name}": promlint.SETTINGS[f"alertmanager_{name}"]}
        assert kinds(**given) == {**none, "page": shared, "ticket": shared}
    assert kinds(**promlint.SETTINGS) == {
        "deadman": {"webhook_configs"},
        "page": {f"{kind}_configs" for kind in ("webhook", "slack", "email", "pagerduty", "opsgenie")},
        "ticket": {f"{kind}_configs" for kind in ("webhook", "slack", "email")},
        "info": {"slack_configs"},
    }


def test_keys_and_passwords_are_in_files() -> None:
    text = promlint.alertmanager_configuration(ROOT, **promlint.SETTINGS)
    email, receivers = promlint.SETTINGS["alertmanager_email"], promlint.SETTINGS["alertmanager_receivers"]
    for secret in (email["password"], receivers["page"]["pagerduty_key"], receivers["info"]["slack_url"]):
        assert secret not in text
    files = re.findall(r"_file: (\S+)", text)
    assert set(files) == {
        f"/etc/streampulse/alertmanager-{name}"
        for name in ("smtp", "slack", "page-pagerduty", "page-opsgenie", "info-slack")
    }


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
