"""Alertmanager accepts alerts and keeps silences, behind its password and over a kill."""

import datetime
import json
from typing import Any

import pytest
from asking import ADDRESS, can_read, get, kill, listening, run, settings, until

UNIT = "prometheus-alertmanager.service"
ENV = settings("monitoring")
PASSWORD = ENV["STREAMPULSE_MONITORING_PASSWORD"]
LABELS = {"alertname": "Verify", "severity": "ticket", "service": "api", "host": "nowhere"}


def ask(path: str, body: object = None, password: str = PASSWORD) -> tuple[int, Any]:
    """Return the status and the body of a response of Alertmanager's API."""
    url = f"{ENV['STREAMPULSE_MONITORING_ALERTMANAGER_URL']}/api/v2/{path}"
    status, text = get(url, ENV["STREAMPULSE_MONITORING_USER"], password, body)
    return status, json.loads(text) if text and status == 200 else text


def after(**delta: float) -> str:
    """Return a future instant in the API's format."""
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(**delta)).isoformat()


def alert() -> None:
    """Send an alert that ends in five minutes."""
    assert ask("alerts", [{"labels": LABELS, "endsAt": after(minutes=5)}])[0] == 200


@pytest.mark.parametrize("password", ["", "wrong"])
def test_a_request_without_the_password_is_refused(password: str) -> None:
    assert ask("status", password=password)[0] == 401
    assert ask("alerts", [], password=password)[0] == 401


def test_it_listens_on_the_private_address_and_for_no_cluster() -> None:
    assert listening(9093) == {ADDRESS}
    # ss shows 15 characters of a name.
    assert sum("prometheus-aler" in line for line in run("ss", "-Hlntup").splitlines()) == 1
    assert ask("status")[1]["cluster"]["status"] == "disabled"


@pytest.mark.parametrize("user", ["node-exporter", "prometheus"])
def test_no_other_service_reads_its_receivers(user: str) -> None:
    assert not can_read(user, "/etc/streampulse/alertmanager.yml")


def test_a_silence_outlives_a_restart_and_a_kill() -> None:
    alert()
    assert [each["labels"] for each in ask("alerts?filter=alertname=Verify")[1]] == [LABELS]
    matcher = {"name": "alertname", "value": "Verify", "isRegex": False, "isEqual": True}
    status, made = ask(
        "silences",
        {"matchers": [matcher], "startsAt": after(), "endsAt": after(hours=1), "createdBy": "verify", "comment": "v"},
    )
    assert status == 200, made
    # Alertmanager writes its silences when it stops in order, so the restart comes before the kill.
    run("systemctl", "restart", UNIT)
    kill(UNIT)
    until("the silence is back", 60, lambda: ask(f"silence/{made['silenceID']}")[0] == 200)
    # Alerts are in memory only.
    alert()

    def states() -> list[str]:
        return [each["status"]["state"] for each in ask("alerts?filter=alertname=Verify")[1]]

    until("the alert is silenced", 30, lambda: states() == ["suppressed"])
    run("streampulse", "silence", "--expire", made["silenceID"])
