"""Monitoring with --full on a machine made on the roles' layer; tasks without --full leave it alone."""

import json
import os
import re
import signal
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from alerting import ALERTMANAGER, PROMETHEUS, ask, up_full
from dashboard_queries import wrong_on
from stack import STATE, WATCHED, Stack, until

from streampulse_ops import services
from streampulse_ops.monitoring import rules

pytestmark = [pytest.mark.machines, pytest.mark.parametrize("stack", [WATCHED], indirect=True, scope="session")]

UNITS = ["prometheus-node-exporter", "prometheus-postgres-exporter", "prometheus-alertmanager", "prometheus"]
WRONG_USAGE = 2
VALUES = rules.values()
# A bound on waiting, not the figure to hold.
COMES_OUT_SECONDS = 60
LOGGED = re.compile(r"(?P<time>\d{4}-\d\d-\d\dT[\d:.]{12}Z) (?P<host>\S+) (?P<service>[\w-]+): ")
PIDS = "systemctl show --property=MainPID --value " + " ".join(UNITS)


def prometheus(stack: Stack, path: str, **parameters: str) -> Any:
    """Return the data of an answer of Prometheus' API."""
    return ask(stack, PROMETHEUS, f"/api/v1/{path}", **parameters)["data"]


def full_status(stack: Stack) -> Any:
    """Return what the watching host knows, as `status --full --json` has it."""
    return json.loads(stack.inv("status", "--full", "--json").out)["monitoring"]


def seen_at(stack: Stack, instant: float) -> bool:
    """Return whether Prometheus has figures of an instant."""
    found = prometheus(stack, "query", query='up{job="node-exporter"}', time=str(instant))
    return bool(found["result"])


def test_every_target_is_read_and_a_second_run_changes_nothing(stack: Stack) -> None:
    up_full(stack)
    targets = prometheus(stack, "targets")["activeTargets"]
    assert {target["health"] for target in targets} == {"up"}
    jobs = {target["labels"]["job"] for target in targets}
    services = {"kafka", "spark-master", "spark-worker", "job", "generator", "api"}
    assert jobs >= services | {"node-exporter", "postgres-exporter", "alertmanager", "prometheus"}
    assert {target["labels"]["host"] for target in targets} == {stack.host}
    assert re.search(r"(?<!\d)0 changed", stack.inv("up", "--full").text)


def test_the_rules_are_evaluated_and_the_runbooks_shown(stack: Stack) -> None:
    until(
        lambda: {rule["health"] for group in prometheus(stack, "rules")["groups"] for rule in group["rules"]} == {"ok"},
        90,
        "every rule is evaluated",
    )
    page = httpx.get(f"http://{stack.address}:9090/user/runbooks/", timeout=10, trust_env=False)
    assert "<h1>Runbooks</h1>" in page.text
    assert prometheus(stack, "query", query="up")["result"][0]["metric"].keys() >= {"job", "instance", "host"}
    assert prometheus(stack, "alertmanagers")["activeAlertmanagers"]


def test_every_panel_of_every_dashboard_finds_something(stack: Stack) -> None:
    # Rates need two readings, the promises' own figures some minutes.
    deadline = time.monotonic() + 300
    while (wrong := wrong_on(stack)) and time.monotonic() < deadline:
        time.sleep(15)
    assert wrong == []


def test_the_terminal_shows_the_figures_of_a_dashboard(stack: Stack) -> None:
    # An alert of the outages before may still page, which is exit code 1.
    def known() -> bool:
        # A lag that was not found out in time is not known at that moment.
        figures = full_status(stack)["figures"]
        return figures["exact_age_seconds"] is not None and figures["lag_seconds"] is not None

    until(known, 150, "an event of the probe came out exactly, and the lag is known")

    def measured() -> set[str]:
        return {each["name"] for each in full_status(stack)["promises"] if each["good"]["5m"] is not None}

    until(lambda: measured() == set(vars(VALUES.objectives)), 240, "every promise is measured")
    report = full_status(stack)
    figures = report["figures"]
    assert figures["lag_seconds"] < VALUES.complete_seconds
    assert figures["arriving_per_second"] > 1
    assert figures["counted_per_second"] > 1
    assert 0 < figures["end_to_end_seconds"] < COMES_OUT_SECONDS
    assert all(target["up"] for target in report["targets"])
    assert report["problems"] == []
    shown = stack.inv("top", "--once").out
    for name in vars(VALUES.objectives):
        assert name in shown
    assert stack.inv("top", "--every", "0").code == WRONG_USAGE


def test_maintenance_is_silent(stack: Stack) -> None:
    def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(stack.inv_ok("silence", "--json"))[stack.host]["silences"]
        return found

    asked = ["silence", "--for", "5m", "--reason", "a new disk", "--service", "kafka"]
    assert "would be silent about" in stack.inv_ok(*asked, "--dry-run")
    assert listed() == []
    made = json.loads(stack.inv_ok(*asked, "--json"))[stack.host]["made"]
    assert [(one["identity"], one["state"], one["reason"]) for one in listed()] == [
        (made["identity"], "active", "a new disk")
    ]
    kept = {one["id"]: one for one in ask(stack, ALERTMANAGER, "/api/v2/silences")}[made["identity"]]
    assert [(matcher["name"], matcher["value"]) for matcher in kept["matchers"]] == [("service", "kafka")]
    assert "is ended" in stack.inv_ok("silence", "--expire", made["identity"][:8])
    assert listed() == []
    again = stack.inv("silence", "--expire", made["identity"][:8])
    assert again.code == 1
    assert "Traceback" not in again.text
    for right, wrong, said in (("5m", "soon", "not a duration"), ("kafka", "kafak", "Did you mean kafka?")):
        refused = stack.inv(*(wrong if word == right else word for word in asked))
        assert refused.code == WRONG_USAGE
        assert said in refused.text


def test_all_journals_in_the_order_of_time(stack: Stack) -> None:
    lines = stack.inv_ok("logs", "--lines", "100").splitlines()
    entries = [match for line in lines if (match := LOGGED.match(line))]
    assert len(entries) == 100
    times = [entry["time"] for entry in entries]
    assert times == sorted(times)
    assert {entry["host"] for entry in entries} == {stack.host}
    assert {entry["service"] for entry in entries} <= {service.name for service in services.all_services()}
    # systemd logs a failed unit as a warning, and its ordinary lines below that level.
    failed = "generator: streampulse-generator.service: Failed with result"
    following = stack.start("logs", "generator", "--since", "1s", "--follow", "--level", "warning")
    try:
        time.sleep(5)
        stack.ssh_ok("systemctl kill --kill-whom=main --signal=KILL streampulse-generator")
        time.sleep(5)
    finally:
        os.killpg(following.pid, signal.SIGINT)
        followed, _ = following.communicate(timeout=20)
    assert failed in followed, followed
    until(lambda: failed in stack.inv_ok("logs", "--level", "warning", "--since", "1m"), 30, "the failure is shown")
    assert "Started streampulse-generator" not in stack.inv_ok("logs", "--level", "warning", "--since", "1m")
    until(lambda: stack.ssh("systemctl is-active streampulse-generator").code == 0, 60, "the generator is back")


def test_it_is_looked_at_like_the_rest(stack: Stack) -> None:
    table = stack.inv_ok("status")
    for service in ("node-exporter", "postgres-exporter", "alertmanager", "prometheus"):
        assert re.search(rf"^\W*{service}\b.*active \(running\)", table, re.MULTILINE), table
    assert f"http://{stack.address}:9090/" in stack.inv_ok("open", "prometheus")
    assert "Server is ready" in stack.inv_ok("logs", "prometheus")


def test_no_secret_stands_in_a_journal_or_a_process_list(stack: Stack) -> None:
    secrets = json.loads((STATE / stack.name / "secrets.json").read_text())["streampulse_secrets"]
    # Kafka's identity is none: Kafka itself writes it down.
    hidden = {name: value for name, value in secrets.items() if name != "kafka_cluster_id"}
    assert len(hidden) > 5
    said = stack.ssh_ok("journalctl --no-pager --all --output=verbose", seconds=120)
    running = stack.ssh_ok("ps -ww -eo args; cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert len(said) > 100_000
    assert [name for name, value in hidden.items() if value in said] == []
    assert [name for name, value in hidden.items() if value in running] == []


def test_a_service_that_was_stopped_is_said_to_be_stopped(stack: Stack) -> None:
    stack.ssh_ok("systemctl stop postgresql@17-main prometheus")
    before = datetime.now(UTC)
    try:
        rows = {row["service"]: row for row in json.loads(stack.inv("status", "--json").out)}
        assert {rows[name]["state"] for name in ("postgres", "prometheus")} == {"inactive (dead)"}
        since = datetime.strptime(rows["postgres"]["since"], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
        assert abs((since - before).total_seconds()) < 60
        assert "is not installed" not in stack.inv("doctor").out
    finally:
        stack.ssh_ok("systemctl start postgresql@17-main prometheus", seconds=120)


def test_it_listens_on_the_private_address_only(stack: Stack) -> None:
    listening = stack.ssh_ok("ss -Hlntup").splitlines()
    addresses = {line.split()[4] for line in listening if "prometheus" in line}
    assert addresses == {f"{stack.address}:{port}" for port in (9090, 9093, 9100, 9187)}


def test_without_full_nothing_of_it_is_touched(stack: Stack) -> None:
    pids = stack.ssh_ok(PIDS)
    assert re.search(r"(?<!\d)0 changed", stack.inv_ok("up"))
    assert stack.ssh_ok(PIDS) == pids


def reset(stack: Stack, *options: str) -> None:
    """Reset with monitoring. Only Grafana may be missing afterwards."""
    done = stack.inv("reset", "--full", "--yes", *options)
    assert done.code in (0, 3), done.text


def test_a_reset_leaves_kept_events_and_figures_and_no_others(stack: Stack) -> None:
    before, now = stack.totals(), time.time()
    reset(stack, "--keep", "kafka,metrics")
    # The job has counted the kept events again.
    assert stack.totals() >= before
    assert "all equal" in stack.inv_ok("verify")
    assert seen_at(stack, now)
    reset(stack)
    assert not seen_at(stack, now)


def test_stopped_in_order_it_starts_with_its_machine(stack: Stack) -> None:
    before, now = stack.totals(), time.time()
    stack.inv_ok("down", "--full")
    assert not stack.machine_pids()
    stack.inv_ok("up")
    until(lambda: seen_at(stack, now), 60, "Prometheus is back with its figures")
    assert stack.totals() > before
