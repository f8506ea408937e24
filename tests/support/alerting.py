"""Alertmanager's alerts while services of a booted machine are held down or killed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from stack import Stack, until

PROMETHEUS, ALERTMANAGER = 9090, 9093
POSTGRES = "postgresql@17-main"
#: Time limit from a service's end to its alert in Alertmanager.
ALERT_SECONDS = 120
CALM_SECONDS = 300


def ask(stack: Stack, port: int, path: str, **parameters: str) -> Any:
    """Return a response of Prometheus or Alertmanager."""
    answer = httpx.get(f"http://{stack.address}:{port}{path}", params=parameters, timeout=10, trust_env=False)
    return answer.raise_for_status().json()


def query(stack: Stack, expression: str) -> list[dict[str, Any]]:
    """Return the series of an instant query."""
    result: list[dict[str, Any]] = ask(stack, PROMETHEUS, "/api/v1/query", query=expression)["data"]["result"]
    return result


def alerts(stack: Stack) -> list[dict[str, Any]]:
    """Return Alertmanager's present alerts."""
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
    """Return the names of the pages that notify people: neither silenced nor inhibited."""
    return names([alert for alert in alerts(stack) if alert["status"]["state"] == "active"], severity="page")


def calm(stack: Stack) -> set[str]:
    """Wait until the stack is healthy, and return the remaining pages: budgets that earlier outages burned.

    A minute and a half without the API is a fiftieth of the month's budget; its alert stays for some minutes.
    """

    def well() -> bool:
        found = alerts(stack)
        down = {name for name in names(found) if name.endswith("Down")}
        # Includes suppressed ones.
        others = names([alert for alert in found if alert["labels"]["service"] != "slo"], severity="page")
        return not query(stack, "up == 0") and not down and not others

    until(well, CALM_SECONDS, "every target is up, and no service's alert is left")
    return waking(stack)


@contextmanager
def held_down(stack: Stack, *units: str) -> Iterator[None]:
    """Keep services stopped, as after a forgotten manual stop."""
    stack.ssh_ok(f"systemctl stop {' '.join(units)}", seconds=120)
    try:
        yield
    finally:
        stack.ssh_ok(f"systemctl start {' '.join(units)}", seconds=300)


def up_full(stack: Stack) -> None:
    """Bring everything up. Only Grafana may be missing: its package comes from a separate repository."""
    done = stack.inv("up", "--full", seconds=900)
    assert done.code in (0, 3), done.text
    assert (done.code == 3) is ("Grafana could not be installed" in done.text), done.text
