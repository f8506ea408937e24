"""Asserts that the master answers, and that it is back with the same identity after its process was killed."""

import json
import re
import subprocess
import time
import urllib.request
from pathlib import Path

LINES = Path("/etc/streampulse/spark.env").read_text(encoding="utf-8").splitlines()
ENV = {key: value.strip("'") for key, value in (line.split("=", 1) for line in LINES if "=" in line)}


def state() -> dict[str, object]:
    """Return what the master says about itself."""
    with urllib.request.urlopen(f"{ENV['STREAMPULSE_SPARK_MASTER_UI']}/json/", timeout=5) as answer:
        return dict(json.load(answer))


# The server that runs whatever it is given has no place on a network that others are on.
listening = subprocess.run(["ss", "-Hlnt", "sport = :6066"], check=True, capture_output=True, text=True).stdout
assert listening == "", f"Spark's server for submissions listens: {listening}"


def main_pid() -> int:
    """Return the pid of the master's process, 0 while there is none."""
    shown = subprocess.run(
        ["systemctl", "show", "--property=MainPID", "--value", "spark-master"],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(shown.stdout)


def identity() -> tuple[object, set[object]]:
    """Return the address that everybody knows the master by, and the workers that it knows."""
    said = state()
    workers = said["workers"]
    assert isinstance(workers, list), said
    return said["url"], {worker["id"] for worker in workers}


def metrics() -> dict[str, float]:
    """Return what the master shows to Prometheus, by name."""
    with urllib.request.urlopen(
        f"{ENV['STREAMPULSE_SPARK_MASTER_UI']}/metrics/master/prometheus/", timeout=10
    ) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain"), answer.headers["Content-Type"]
        found = re.findall(r"^(\w+)\{type=\"gauges\"\} (\S+)$", answer.read().decode(), re.MULTILINE)
    return {name: float(value) for name, value in found}


assert state()["status"] == "ALIVE", state()
shown = metrics()
for name, key in (("workers", "workers"), ("apps", "activeapps")):
    listed = state()[key]
    assert isinstance(listed, list), listed
    assert shown[f"metrics_master_{name}_Value"] == len(listed), shown
assert 0 < shown["metrics_jvm_heap_used_Value"] <= shown["metrics_jvm_heap_max_Value"], shown
assert shown["metrics_master_aliveWorkers_Value"] <= shown["metrics_master_workers_Value"], shown
assert shown["metrics_master_waitingApps_Value"] <= shown["metrics_master_apps_Value"], shown
url, workers = identity()
assert url == ENV["STREAMPULSE_SPARK_MASTER"], url
killed = main_pid()
assert killed > 0, "the master does not run"
subprocess.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", "spark-master"], check=True)
begun, alive = time.monotonic(), False
while not alive:
    assert time.monotonic() - begun < 90, "the master did not come back within 90 s"
    time.sleep(0.25)
    try:
        alive = main_pid() not in (0, killed) and state()["status"] == "ALIVE"
    except OSError:
        continue
back, known = identity()
assert back == url, f"the master is {back} and was {url}"
assert known >= workers, f"the master has forgotten {workers - known}"
