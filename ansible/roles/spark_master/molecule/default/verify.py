"""Asserts that the master answers, and that it is back with the same identity after its process was killed."""

import json
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


assert state()["status"] == "ALIVE", state()
assert state()["url"] == ENV["STREAMPULSE_SPARK_MASTER"], state()["url"]
subprocess.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", "spark-master"], check=True)
begun = time.monotonic()
while True:
    try:
        if state()["status"] == "ALIVE":
            break
    except OSError:
        assert time.monotonic() - begun < 90, "the master did not come back within 90 s"
    time.sleep(0.25)
