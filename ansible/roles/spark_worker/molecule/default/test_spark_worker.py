"""The worker is registered with the master, and an executor runs the release's Python as the worker's user."""

import contextlib
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from asking import get, get_json, run, settings, stopped, until

ENV = settings("spark")
MASTER = ENV["STREAMPULSE_SPARK_MASTER"]
PROGRAM = """
import getpass, sys
from pyspark.sql import SparkSession
session = SparkSession.builder.getOrCreate()
found = session.sparkContext.parallelize([1], 1).map(lambda _: (getpass.getuser(), sys.executable)).collect()
assert found == [("spark-worker", "/opt/streampulse/current/venv/bin/python")], found
session.stop()
"""


def worker() -> dict[str, Any] | None:
    """Return the master's entry of the worker, None while it is not alive."""
    workers = get_json(f"{ENV['STREAMPULSE_SPARK_MASTER_UI']}/json/")["workers"]
    return next((each for each in workers if each["state"] == "ALIVE"), None)


def test_it_is_registered_with_all_cores_and_shows_its_metrics() -> None:
    found = until("the worker is registered", 90, worker, AssertionError)
    assert found is not None
    assert found["cores"] == os.cpu_count()
    _, text = get(f"{found['webuiaddress']}/metrics/prometheus/")
    shown = {name: float(value) for name, value in re.findall(r"^(\w+)\{type=\"gauges\"\} (\S+)$", text, re.MULTILINE)}
    cores = [shown[f"metrics_worker_cores{kind}_Value"] for kind in ("Used", "Free")]
    assert sum(cores) == os.cpu_count()
    assert sum(shown[f"metrics_worker_mem{kind}_MB_Value"] for kind in ("Used", "Free")) == found["memory"]
    assert 0 < shown["metrics_jvm_heap_used_Value"] <= shown["metrics_jvm_heap_max_Value"]
    assert shown["metrics_worker_executors_Value"] <= cores[0]


def test_an_executor_runs_the_releases_python_as_the_workers_user(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    address = MASTER.removeprefix("spark://").rpartition(":")[0]
    command = ["/opt/spark/current/pyspark/bin/spark-submit", "--master", MASTER]
    for setting in ("spark.ui.enabled=false", f"spark.driver.host={address}", "spark.executor.memory=512m"):
        command += ["--conf", setting]
    environment = {
        **os.environ,
        "SPARK_HOME": "/opt/spark/current/pyspark",
        "SPARK_CONF_DIR": "/etc/spark/conf",
        "SPARK_LOCAL_IP": address,
        "PYSPARK_PYTHON": "/opt/streampulse/current/venv/bin/python",
    }
    with contextlib.ExitStack() as stack:
        # The job holds all cores while it runs.
        if run("systemctl", "list-units", "--plain", "--no-legend", "--state=active", "streampulse-job.service"):
            stack.enter_context(stopped("streampulse-job"))
        until("cores are free", 60, lambda: (found := worker()) and found["coresfree"] > 0, AssertionError)
        done = subprocess.run(
            [*command, str(file)], check=False, capture_output=True, text=True, timeout=180, env=environment
        )
    assert done.returncode == 0, done.stdout + done.stderr
