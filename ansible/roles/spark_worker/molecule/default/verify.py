"""Asserts that the worker is registered with the master, and that an executor runs the release's Python as its user."""

import json
import os
import re
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

LINES = Path("/etc/streampulse/spark.env").read_text(encoding="utf-8").splitlines()
ENV = {key: value.strip("'") for key, value in (line.split("=", 1) for line in LINES if "=" in line)}
begun = time.monotonic()
while True:
    with urllib.request.urlopen(f"{ENV['STREAMPULSE_SPARK_MASTER_UI']}/json/", timeout=5) as answer:
        state = json.load(answer)
    alive = [worker for worker in state["workers"] if worker["state"] == "ALIVE"]
    if alive:
        break
    assert time.monotonic() - begun < 90, f"no worker registered within 90 s: {state['workers']}"
    time.sleep(0.25)
assert alive[0]["cores"] == os.cpu_count(), alive[0]

with urllib.request.urlopen(f"{alive[0]['webuiaddress']}/metrics/prometheus/", timeout=10) as answer:
    assert answer.headers["Content-Type"].startswith("text/plain"), answer.headers["Content-Type"]
    shown = dict(re.findall(r"^(\w+)\{type=\"gauges\"\} (\S+)$", answer.read().decode(), re.MULTILINE))
cores = [float(shown[f"metrics_worker_cores{kind}_Value"]) for kind in ("Used", "Free")]
assert sum(cores) == os.cpu_count(), shown
memory = [float(shown[f"metrics_worker_mem{kind}_MB_Value"]) for kind in ("Used", "Free")]
assert sum(memory) == alive[0]["memory"], shown
assert 0 < float(shown["metrics_jvm_heap_used_Value"]) <= float(shown["metrics_jvm_heap_max_Value"]), shown
assert float(shown["metrics_worker_executors_Value"]) <= cores[0], shown

# Where the job holds all cores, an application of ours would wait for ever: the job's own check covers it there.
if alive[0]["coresfree"] > 0:
    program = """
import getpass, sys
from pyspark.sql import SparkSession
session = SparkSession.builder.getOrCreate()
found = session.sparkContext.parallelize([1], 1).map(lambda _: (getpass.getuser(), sys.executable)).collect()
assert found == [("spark-worker", "/opt/streampulse/current/venv/bin/python")], found
session.stop()
"""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(program)
        file.flush()
        address = ENV["STREAMPULSE_SPARK_MASTER"].removeprefix("spark://").rpartition(":")[0]
        done = subprocess.run(
            [
                "/opt/spark/current/pyspark/bin/spark-submit", "--master", ENV["STREAMPULSE_SPARK_MASTER"],
                "--conf", "spark.ui.enabled=false", "--conf", f"spark.driver.host={address}",
                "--conf", "spark.executor.memory=512m", file.name,
            ],
            check=False, capture_output=True, text=True, timeout=120,
            env={
                **os.environ,
                "SPARK_HOME": "/opt/spark/current/pyspark",
                "SPARK_CONF_DIR": "/etc/spark/conf",
                "SPARK_LOCAL_IP": address,
                "PYSPARK_PYTHON": "/opt/streampulse/current/venv/bin/python",
            },
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
