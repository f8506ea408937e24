"""Asserts over Prometheus' API that it reads targets, has its rules and shows the runbooks, also after a kill."""

import base64
import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

UNIT = "prometheus.service"
ETC = Path("/etc/prometheus/streampulse")
LINES = Path("/etc/streampulse/monitoring.env").read_text(encoding="utf-8").splitlines()
ENV = {key: value.strip("'") for key, value in (line.split("=", 1) for line in LINES if "=" in line)}
URL = ENV["STREAMPULSE_MONITORING_PROMETHEUS_URL"]
PASSWORD = ENV["STREAMPULSE_MONITORING_PASSWORD"]
ADDRESS = subprocess.run(["hostname", "-I"], check=True, capture_output=True, text=True).stdout.split()[0]


def get(path: str, password: str = PASSWORD) -> tuple[int, str]:
    """Return the status and the answer; without a password when it is empty."""
    request = urllib.request.Request(f"{URL}{path}")
    if password:
        pair = f"{ENV['STREAMPULSE_MONITORING_USER']}:{password}".encode()
        request.add_header("Authorization", f"Basic {base64.b64encode(pair).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def ask(path: str) -> Any:
    """Return the data of an answer of the API."""
    status, text = get(f"/api/v1/{path}")
    assert status == 200, f"{path} answers {status}"
    return json.loads(text)["data"]


def query(text: str) -> list[Any]:
    """Return what a query finds now."""
    found: list[Any] = ask(f"query?{urllib.parse.urlencode({'query': text})}")["result"]
    return found


def wait(text: str, seconds: float) -> list[Any]:
    """Wait until a query finds something."""
    deadline, seen = time.monotonic() + seconds, "nothing"
    while True:
        try:
            found = query(text)
            if found:
                return found
        except OSError as error:
            seen = str(error)
        assert time.monotonic() < deadline, f"{seen} within {seconds:g} s: {text}"
        time.sleep(0.5)


def listening(port: int) -> set[str]:
    """Return the addresses that something listens on, at a port."""
    shown = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], check=True, capture_output=True, text=True).stdout
    return {line.split()[3].rpartition(":")[0] for line in shown.splitlines()}


assert get("/api/v1/targets", "")[0] == 401, "it answers without a password"
assert get("/api/v1/targets", PASSWORD + "x")[0] == 401, "it answers with a wrong password"
assert listening(9090) == {ADDRESS}, listening(9090)

# It reads what asks for a password, with the labels of the inventory.
host = Path("/etc/hostname").read_text(encoding="utf-8").strip()
for job in ("prometheus", "alertmanager", "node-exporter"):
    seen = wait(f'up{{job="{job}"}} == 1', 40)
    assert [series["metric"]["host"] for series in seen] == [host], seen
# Also what is not there is looked for, and known to be down. Others may have been set up by the scenarios of before.
assert {target["labels"]["job"] for target in ask("targets")["activeTargets"]} >= {"api", "job", "generator"}
wait('up{job="probe"} == 0', 40)
loaded = {Path(group["file"]).name for group in ask("rules")["groups"]}
assert loaded == {file.name for file in (ETC / "rules").iterdir()}, loaded
rules = "".join(file.read_text(encoding="utf-8") for file in (ETC / "rules").iterdir())
assert not (left := re.findall("@[A-Z]+@", rules)), f"markers without an address: {left}"
assert "/user/runbooks/kafka-down.html" in rules
flags = ask("status/flags")
# 35 days, as Prometheus writes them.
assert flags["storage.tsdb.retention.time"] == "5w", flags["storage.tsdb.retention.time"]
assert flags["storage.tsdb.retention.size"] != "0B"
# Discovered apart from the targets.
deadline = time.monotonic() + 40
while not (alertmanagers := ask("alertmanagers")["activeAlertmanagers"]):
    assert time.monotonic() < deadline, "Prometheus knows no Alertmanager"
    time.sleep(0.5)
assert [each["url"] for each in alertmanagers] == [f"http://{ADDRESS}:9093/api/v2/alerts"], alertmanagers
status, page = get("/user/runbooks/index.html")
assert status == 200, status
assert "<h1>Runbooks</h1>" in page, page

# The commands behind `inv status --full` and `inv silence` come in with the host's own password.
COMMAND = "/usr/local/bin/streampulse"


def said(*words: str) -> Any:
    """Return what streampulse's own command answers."""
    done = subprocess.run([COMMAND, *words, "--json"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


report = said("slo")
assert {(each["job"], each["up"]) for each in report["targets"]} >= {("prometheus", True), ("probe", False)}, report
# Nothing that a promise is about runs here; all else is known.
assert [each for each in report["problems"] if "no promise" not in each] == [], report["problems"]
made = said("silence", "--for", "5m", "--reason", "scenario", "--service", "api")["made"]
# Alertmanager's own scenario may have left one.
assert made["identity"] in {each["identity"] for each in said("silence")["silences"]}
assert said("silence", "--expire", made["identity"])["ended"]["state"] == "expired"
assert made["identity"] not in {each["identity"] for each in said("silence")["silences"]}

for user in ("node-exporter", "alertmanager"):
    for file in ("monitoring.password", "web.yml"):
        read = subprocess.run(["runuser", "-u", user, "--", "cat", str(ETC / file)], check=False, capture_output=True)
        assert read.returncode != 0, f"{user} can read {file}"

earlier = float(query("prometheus_tsdb_head_min_time")[0]["value"][1])
killed = time.time()
subprocess.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT], check=True)
time.sleep(0.5)
# It reads on by itself, and still has what it read before.
wait(f'timestamp(up{{job="node-exporter"}} == 1) > {killed}', 60)
wait(f"timestamp(prometheus_tsdb_head_min_time) > {killed}", 40)
assert float(query("prometheus_tsdb_head_min_time")[0]["value"][1]) == earlier, "what was read before the kill is gone"
