"""What --full adds, on the machine that the other tests use, and that nothing of it is touched without --full."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
import urllib.request
from typing import Any

import pytest
from dashboard_queries import wrong_on
from stack import DEBIAN_13, Stack, until

pytestmark = [
    pytest.mark.machines,
    pytest.mark.parametrize("stack", [DEBIAN_13], indirect=True, scope="session"),
]

UNITS = [
    "prometheus-node-exporter",
    "prometheus-postgres-exporter",
    "prometheus-alertmanager",
    "prometheus",
]
PIDS = "systemctl show --property=MainPID --value " + " ".join(UNITS)


def up_full(stack: Stack) -> str:
    """Bring everything up; Grafana, which comes from elsewhere, may be the only thing that is missing."""
    done = stack.inv("up", "--full", seconds=900)
    assert done.code in (0, 3), done.text
    assert (done.code == 3) is ("Grafana could not be had" in done.text), done.text
    return done.text


def prometheus(stack: Stack, path: str, **parameters: str) -> Any:
    """Return the data of an answer of Prometheus' API."""
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    with urllib.request.urlopen(f"http://{stack.address}:9090/api/v1/{path}{query}", timeout=10) as answer:
        return json.load(answer)["data"]


def seen_at(stack: Stack, instant: float) -> bool:
    """Return whether Prometheus has figures of an instant."""
    found = prometheus(stack, "query", query='up{job="node-exporter"}', time=str(instant))
    return bool(found["result"])


@pytest.fixture(scope="module", autouse=True)
def running(stack: Stack) -> None:
    stack.inv_ok("up", seconds=900)


def test_full_comes_on_top_and_a_second_run_changes_nothing(stack: Stack) -> None:
    assert not re.search(r"^\W*prometheus\b", stack.inv_ok("status"), re.MULTILINE), "shown before it is there"
    up_full(stack)
    targets = prometheus(stack, "targets")["activeTargets"]
    assert {target["health"] for target in targets} == {"up"}
    jobs = {target["labels"]["job"] for target in targets}
    services = {"kafka", "spark-master", "spark-worker", "job", "generator", "api"}
    assert jobs >= services | {"node-exporter", "postgres-exporter", "alertmanager", "prometheus"}
    assert {target["labels"]["host"] for target in targets} == {stack.host}
    assert re.search(r"(?<!\d)0 changed", up_full(stack))
    stack.inv_ok("smoke", "--full")


def test_the_rules_are_evaluated_and_the_runbooks_shown(stack: Stack) -> None:
    until(
        lambda: {rule["health"] for group in prometheus(stack, "rules")["groups"] for rule in group["rules"]} == {"ok"},
        90,
        "every rule is evaluated",
    )
    with urllib.request.urlopen(f"http://{stack.address}:9090/user/runbooks/index.html", timeout=10) as page:
        assert "<h1>Runbooks</h1>" in page.read().decode()
    assert prometheus(stack, "query", query="up")["result"][0]["metric"].keys() >= {"job", "instance", "host"}
    assert prometheus(stack, "alertmanagers")["activeAlertmanagers"]


def test_every_panel_of_every_dashboard_finds_something(stack: Stack) -> None:
    # Rates need two readings, the promises' own figures some minutes.
    deadline = time.monotonic() + 300
    while (wrong := wrong_on(stack)) and time.monotonic() < deadline:
        time.sleep(15)
    assert wrong == []


def test_it_is_looked_at_like_the_rest(stack: Stack) -> None:
    table = stack.inv_ok("status")
    for service in ("node-exporter", "postgres-exporter", "alertmanager", "prometheus"):
        assert re.search(rf"^\W*{service}\b.*active \(running\)", table, re.MULTILINE), table
    assert f"http://{stack.address}:9090/" in stack.inv_ok("open", "prometheus")
    assert "Server is ready" in stack.inv_ok("logs", "prometheus")


def test_it_listens_on_the_private_address_only(stack: Stack) -> None:
    listening = stack.ssh_ok("ss -Hlntup").splitlines()
    addresses = {line.split()[4] for line in listening if "prometheus" in line}
    assert addresses == {f"{stack.address}:{port}" for port in (9090, 9093, 9100, 9187)}


def test_without_full_nothing_of_it_is_touched(stack: Stack) -> None:
    pids, now = stack.ssh_ok(PIDS), time.time()
    assert re.search(r"(?<!\d)0 changed", stack.inv_ok("up"))
    plan = stack.inv_ok("reset", "--dry-run", "--keep", "kafka")
    assert "leave monitoring alone" in plan
    before = stack.totals()
    stack.inv_ok("reset", "--yes", "--keep", "kafka")
    # What was kept in Kafka was counted anew.
    assert stack.totals() >= before
    assert "all equal" in stack.inv_ok("verify")
    assert stack.ssh_ok(PIDS) == pids
    assert seen_at(stack, now)


def test_figures_outlive_a_reset_that_keeps_them_and_no_other(stack: Stack) -> None:
    now = time.time()
    done = stack.inv("reset", "--full", "--yes", "--keep", "metrics")
    assert done.code in (0, 3), done.text
    assert seen_at(stack, now)
    done = stack.inv("reset", "--full", "--yes")
    assert done.code in (0, 3), done.text
    assert not seen_at(stack, now)


def test_stopped_in_order_it_starts_with_its_machine(stack: Stack) -> None:
    now = time.time()
    stack.inv_ok("down", "--full")
    stack.inv_ok("up")
    until(lambda: seen_at(stack, now), 60, "Prometheus is back with its figures")
    assert re.search(r"(?<!\d)0 changed", up_full(stack))
