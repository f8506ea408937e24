"""Prometheus scrapes its targets, has its rules and serves the runbooks, behind its password and over a kill."""

import json
import re
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import ADDRESS, can_read, get, kill, listening, run, settings, until

UNIT = "prometheus.service"
ETC = Path("/etc/prometheus/streampulse")
ENV = settings("monitoring")
URL = ENV["STREAMPULSE_MONITORING_PROMETHEUS_URL"]
USER, PASSWORD = ENV["STREAMPULSE_MONITORING_USER"], ENV["STREAMPULSE_MONITORING_PASSWORD"]


def ask(path: str) -> Any:
    """Return the data of an API response."""
    status, text = get(f"{URL}/api/v1/{path}", USER, PASSWORD)
    assert status == 200, f"{path} answers {status}"
    return json.loads(text)["data"]


def query(text: str) -> list[Any]:
    """Return the present result of a query."""
    found: list[Any] = ask(f"query?{urllib.parse.urlencode({'query': text})}")["result"]
    return found


def said(*words: str) -> Any:
    """Return the JSON of the streampulse command, which logs in with the host's password."""
    return json.loads(run("/usr/local/bin/streampulse", *words, "--json"))


@pytest.fixture(scope="module", autouse=True)
def _without_the_probe() -> Iterator[None]:
    """Have one target that is down, for any order of roles."""
    probe = "streampulse-probe.service"
    active = run("systemctl", "list-units", "--plain", "--no-legend", "--state=active", probe)
    if active:
        run("systemctl", "stop", probe)
    yield
    if active:
        run("systemctl", "start", probe)


@pytest.mark.parametrize("password", ["", "wrong"])
def test_a_request_without_the_password_is_refused(password: str) -> None:
    assert get(f"{URL}/api/v1/targets", USER, password)[0] == 401


def test_it_listens_on_the_private_address_only() -> None:
    assert listening(9090) == {ADDRESS}


@pytest.mark.parametrize("job", ["prometheus", "alertmanager", "node-exporter"])
def test_a_target_behind_a_password_is_read_with_the_inventorys_labels(job: str) -> None:
    seen = until(f"{job} is up", 60, lambda: query(f'up{{job="{job}"}} == 1'))
    assert [series["metric"]["host"] for series in seen] == [Path("/etc/hostname").read_text().strip()]


def test_a_target_that_is_not_there_is_known_to_be_down() -> None:
    jobs = {target["labels"]["job"] for target in ask("targets")["activeTargets"]}
    assert jobs >= {"api", "edge", "job", "generator"}
    until("the probe is down", 60, lambda: query('up{job="probe"} == 0'))


def test_it_has_every_rule_with_the_addresses_of_this_place() -> None:
    files = list((ETC / "rules").iterdir())
    assert {Path(group["file"]).name for group in ask("rules")["groups"]} == {file.name for file in files}
    rules = "".join(file.read_text() for file in files)
    assert not re.findall("@[A-Z]+@", rules)
    assert "/user/runbooks/kafka-down.html" in rules


def test_it_keeps_figures_for_35_days_within_a_bound() -> None:
    flags = ask("status/flags")
    assert flags["storage.tsdb.retention.time"] == "5w"
    assert flags["storage.tsdb.retention.size"] != "0B"


def test_it_sends_to_alertmanager() -> None:
    found = until("Alertmanager is found", 60, lambda: ask("alertmanagers")["activeAlertmanagers"])
    assert [each["url"] for each in found] == [f"http://{ADDRESS}:9093/api/v2/alerts"]


def test_it_shows_the_runbooks() -> None:
    status, page = get(f"{URL}/user/runbooks/index.html", USER, PASSWORD)
    assert status == 200
    assert "<h1>Runbooks</h1>" in page


def test_the_hosts_own_command_reports_on_targets() -> None:
    # The watchdog's alert is a while on its way.
    until(
        "the probe is reported down, and nothing else",
        60,
        lambda: (
            (found := said("slo"))
            and {("prometheus", True), ("probe", False)} <= {(each["job"], each["up"]) for each in found["targets"]}
            # An objective without a running service is a problem in the report; every other part is known.
            and all("no promise" in each for each in found["problems"])
        ),
    )


def test_the_hosts_own_command_silences() -> None:
    made = said("silence", "--for", "5m", "--reason", "scenario", "--service", "api")["made"]["identity"]
    assert made in {each["identity"] for each in said("silence")["silences"]}
    assert said("silence", "--expire", made)["ended"]["state"] == "expired"
    assert made not in {each["identity"] for each in said("silence")["silences"]}


@pytest.mark.parametrize("user", ["node-exporter", "alertmanager"])
@pytest.mark.parametrize("file", ["monitoring.password", "web.yml"])
def test_no_other_service_reads_its_passwords(user: str, file: str) -> None:
    assert not can_read(user, str(ETC / file))


def test_it_keeps_its_metrics_after_a_kill() -> None:
    earlier = query("prometheus_tsdb_head_min_time")[0]["value"][1]
    killed = time.time()
    kill(UNIT)
    until("it reads on", 90, lambda: query(f'timestamp(up{{job="node-exporter"}} == 1) > {killed}'), AssertionError)
    until("it reads itself", 60, lambda: query(f"timestamp(prometheus_tsdb_head_min_time) > {killed}"), AssertionError)
    assert query("prometheus_tsdb_head_min_time")[0]["value"][1] == earlier
