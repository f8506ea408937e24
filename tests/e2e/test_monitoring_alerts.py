"""Alerts on a booted machine: each service that is held down has its own and no unrelated page.

A crash that heals itself wakes nobody. The tests build on each other, in this order.
"""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from stack import DEBIAN_13, Stack, until

pytestmark = [
    pytest.mark.machines,
    pytest.mark.parametrize("stack", [DEBIAN_13], indirect=True, scope="session"),
]

PROMETHEUS, ALERTMANAGER = 9090, 9093
#: All is there but Grafana, whose own repository cannot be reached everywhere.
WITHOUT_GRAFANA = 3
#: From a service's end to its alert in Alertmanager.
ALERT_SECONDS = 90
CALM_SECONDS = 240
#: A crash that is over within this has healed itself.
HEALED_SECONDS = 30
#: Longer than the windows that errors are counted over, and than a group waits for its next notification.
AFTERWARDS_SECONDS = 150
#: Until errors have been many enough for long enough: what they are counted over, and how long they must last.
ERRORS_SECONDS = 300
#: Longer than a crash takes to heal, than an alert takes to fire and than a notification waits for its group.
WATCHED_SECONDS = 80

# The alert of each service that is held down: those that wake somebody, and those that can wait until the morning.
PAGES = {
    "kafka": "KafkaDown",
    "postgresql@17-main": "PostgresDown",
    "spark-master": "SparkMasterDown",
    "spark-worker": "SparkWorkerDown",
    "streampulse-job": "JobDown",
    "streampulse-api": "ApiDown",
}
TICKETS = {
    "streampulse-generator": "GeneratorDown",
    "streampulse-probe": "ProbeDown",
    "prometheus-node-exporter": "NodeExporterDown",
    "prometheus-postgres-exporter": "PostgresExporterDown",
}
# Held down together where neither has anything to do with the other; each round takes minutes.
# What is just over keeps quiet for some minutes what follows from it: nothing of that comes after it here.
ROUNDS = [
    ["streampulse-job", "streampulse-generator", "prometheus-node-exporter", "prometheus-postgres-exporter"],
    ["spark-worker", "streampulse-api"],
    ["spark-master", "streampulse-probe"],
    ["kafka"],
]
POSTGRES = "postgresql@17-main"


def ask(stack: Stack, port: int, path: str, **parameters: str) -> Any:
    """Return what Prometheus or Alertmanager answers."""
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    with urllib.request.urlopen(f"http://{stack.address}:{port}{path}{query}", timeout=10) as answer:
        return json.load(answer)


def query(stack: Stack, expression: str) -> list[dict[str, Any]]:
    """Return the series of an instant query."""
    result: list[dict[str, Any]] = ask(stack, PROMETHEUS, "/api/v1/query", query=expression)["data"]["result"]
    return result


def alerts(stack: Stack) -> list[dict[str, Any]]:
    """Return the alerts that Alertmanager has now."""
    found: list[dict[str, Any]] = ask(stack, ALERTMANAGER, "/api/v2/alerts")
    return found


def names(found: list[dict[str, Any]], **labels: str) -> set[str]:
    """Return the names of the alerts with these labels."""
    return {
        alert["labels"]["alertname"]
        for alert in found
        if all(alert["labels"].get(key) == value for key, value in labels.items())
    }


def waking(stack: Stack) -> set[str]:
    """Return the names of the pages that reach somebody: neither silenced nor inhibited."""
    return names([alert for alert in alerts(stack) if alert["status"]["state"] == "active"], severity="page")


def calm(stack: Stack) -> set[str]:
    """Wait until all is well, and return the pages that are left of the outages before: budgets that burned meanwhile.

    A minute and a half without the API is a fiftieth of the month's budget; that is told for some minutes after it.
    """

    def well() -> bool:
        found = alerts(stack)
        down = {name for name in names(found) if name.endswith("Down")}
        # Also those that are kept quiet.
        others = names([alert for alert in found if alert["labels"]["service"] != "slo"], severity="page")
        return not query(stack, "up == 0") and not down and not others

    until(well, CALM_SECONDS, "every target is up, and no service's alert is left")
    return waking(stack)


@contextmanager
def held_down(stack: Stack, *units: str) -> Iterator[None]:
    """Keep services from running, as somebody would who stops them and forgets."""
    stack.ssh_ok(f"systemctl stop {' '.join(units)}", seconds=120)
    try:
        yield
    finally:
        stack.ssh_ok(f"systemctl start {' '.join(units)}", seconds=300)


@pytest.fixture(scope="module", autouse=True)
def running(stack: Stack) -> None:
    done = stack.inv("up", "--full", seconds=900)
    assert done.code in (0, WITHOUT_GRAFANA), done.text


def test_the_probe_is_exact(stack: Stack) -> None:
    exact = 'streampulse_probe_events_total{outcome="exact"}'
    until(lambda: bool(query(stack, f"{exact} > 0")), 150, "an event of the probe came out exactly")
    assert not query(stack, 'streampulse_probe_events_total{outcome!="exact"} > 0')


def test_a_healthy_stack_has_no_alert_but_the_dead_mans_switch(stack: Stack) -> None:
    calm(stack)

    def only_the_switch() -> bool:
        found = alerts(stack)
        # Of severity none is what tells nobody anything: the switch, and that something was down a moment ago.
        return "Watchdog" in names(found, severity="none") and names(found) == names(found, severity="none")

    until(only_the_switch, CALM_SECONDS, "no page and no ticket is left")


def test_every_service_is_held_down_once(stack: Stack) -> None:  # noqa: ARG001 - the module is parametrized by it
    assert sorted([POSTGRES, *(unit for units in ROUNDS for unit in units)]) == sorted([*PAGES, *TICKETS])


@pytest.mark.parametrize("units", ROUNDS, ids=" and ".join)
def test_held_down(stack: Stack, units: list[str]) -> None:
    pages = {PAGES[unit] for unit in units if unit in PAGES}
    tickets = {TICKETS[unit] for unit in units if unit in TICKETS}
    left = calm(stack)
    with held_down(stack, *units):
        until(
            lambda: pages <= waking(stack) and tickets <= names(alerts(stack), severity="ticket"),
            ALERT_SECONDS,
            f"{', '.join(sorted(pages | tickets))} in Alertmanager",
        )
        # What follows from it comes a little later; none of that may wake anybody as well.
        time.sleep(20)
        assert waking(stack) - left == pages


def test_nobody_is_woken_again_by_what_is_over(stack: Stack) -> None:
    left = calm(stack)
    woken = {PAGES[POSTGRES]}
    with held_down(stack, POSTGRES):
        until(lambda: woken <= waking(stack), ALERT_SECONDS, "PostgresDown in Alertmanager")
        # It follows, and nobody is told; when PostgreSQL is back, the errors are still in the window.
        until(lambda: "ApiErrorRateHigh" in names(alerts(stack)), ERRORS_SECONDS, "errors page, and are kept quiet")
        assert waking(stack) - left == woken
    seen, begun = set[str](), time.monotonic()
    while time.monotonic() < begun + AFTERWARDS_SECONDS:
        time.sleep(2)
        seen |= waking(stack)
    assert seen - left <= woken
    assert not waking(stack) & woken


@pytest.mark.parametrize("unit", ["streampulse-job", "kafka"])
def test_a_crash_that_heals_itself_wakes_nobody(stack: Stack, unit: str) -> None:
    took: list[float] = []
    for _ in range(3):
        left = calm(stack)
        stack.ssh_ok(f"systemctl kill --kill-whom=main --signal=KILL {unit}")
        seen, begun, back = set[str](), time.monotonic(), 0.0
        while time.monotonic() < begun + WATCHED_SECONDS:
            time.sleep(2)
            found = alerts(stack)
            # Also what is kept quiet by something that has just been down.
            seen |= names([alert for alert in found if alert["labels"]["service"] != "slo"], severity="page")
            seen |= waking(stack)
            if not back and stack.ssh(f"systemctl is-active {unit}").out.strip() == "active":
                back = time.monotonic() - begun
        took.append(back or WATCHED_SECONDS)
        if took[-1] <= HEALED_SECONDS:
            assert seen <= left
            return
        # This machine is so busy that it was away for longer than a crash takes to heal, and a page is right.
    pytest.fail(f"{unit} took {took} s to be back")


def test_nothing_was_lost(stack: Stack) -> None:
    calm(stack)
    assert "all equal" in stack.inv_ok("verify")
