"""Asserts over Alertmanager's API that it takes alerts and keeps silences, behind its password and over a kill."""

import base64
import datetime
import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

UNIT = "prometheus-alertmanager.service"
CONFIG = Path("/etc/streampulse/alertmanager.yml")
LINES = Path("/etc/streampulse/monitoring.env").read_text(encoding="utf-8").splitlines()
ENV = {key: value.strip("'") for key, value in (line.split("=", 1) for line in LINES if "=" in line)}
URL = ENV["STREAMPULSE_MONITORING_ALERTMANAGER_URL"]
PASSWORD = ENV["STREAMPULSE_MONITORING_PASSWORD"]
ADDRESS = subprocess.run(["hostname", "-I"], check=True, capture_output=True, text=True).stdout.split()[0]


def ask(path: str, body: object = None, password: str = PASSWORD) -> tuple[int, Any]:
    """Return the status and the answer; without a password when it is empty."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{URL}/api/v2/{path}", data, {"Content-Type": "application/json"})
    if password:
        pair = f"{ENV['STREAMPULSE_MONITORING_USER']}:{password}".encode()
        request.add_header("Authorization", f"Basic {base64.b64encode(pair).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read().decode()
            return answer.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def after(**delta: float) -> str:
    """Return the instant after now as the API writes it."""
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(**delta)).isoformat()


def listening(port: int) -> set[str]:
    """Return the addresses that something listens on, at a port."""
    shown = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], check=True, capture_output=True, text=True).stdout
    return {line.split()[3].rpartition(":")[0] for line in shown.splitlines()}


assert ask("status", password="")[0] == 401, "it answers without a password"
assert ask("alerts", [], password=PASSWORD + "x")[0] == 401, "it answers with a wrong password"
assert listening(9093) == {ADDRESS}, listening(9093)
sockets = subprocess.run(["ss", "-Hlntup"], check=True, capture_output=True, text=True).stdout.splitlines()
assert sum("prometheus-aler" in line for line in sockets) == 1, "it listens for a cluster"
status, answer = ask("status")
assert status == 200, answer
assert answer["cluster"]["status"] == "disabled", answer["cluster"]

labels = {"alertname": "Verify", "severity": "ticket", "service": "api", "host": "nowhere"}
assert ask("alerts", [{"labels": labels, "endsAt": after(minutes=5)}])[0] == 200
status, alerts = ask("alerts?filter=alertname=Verify")
assert [alert["labels"] for alert in alerts] == [labels], alerts
matcher = {"name": "alertname", "value": "Verify", "isRegex": False, "isEqual": True}
silence = {"matchers": [matcher], "startsAt": after(), "endsAt": after(hours=1), "createdBy": "verify", "comment": "v"}
status, made = ask("silences", silence)
assert status == 200, made

for user in ("node-exporter", "prometheus"):
    read = subprocess.run(["runuser", "-u", user, "--", "cat", str(CONFIG)], check=False, capture_output=True)
    assert read.returncode != 0, f"{user} can read whom Alertmanager writes to"

# Asked to end it keeps what it knows; killed it comes back with that.
subprocess.run(["systemctl", "restart", UNIT], check=True)
subprocess.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT], check=True)
time.sleep(0.5)
deadline = time.monotonic() + 60
while True:
    try:
        status, kept = ask(f"silence/{made['silenceID']}")
        if status == 200:
            break
    except OSError as error:
        kept = error
    assert time.monotonic() < deadline, f"its silence did not come back within 60 s: {kept}"
    time.sleep(0.2)
assert ask("alerts", [{"labels": labels, "endsAt": after(minutes=5)}])[0] == 200
deadline = time.monotonic() + 30
while [alert["status"]["state"] for alert in ask("alerts?filter=alertname=Verify")[1]] != ["suppressed"]:
    assert time.monotonic() < deadline, "the alert is not silenced"
    time.sleep(0.2)
