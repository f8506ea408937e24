"""Spark's distribution is complete: the release's Python finds it, and its programs run."""

import os
import subprocess
from pathlib import Path

import pyspark

HOME = Path("/opt/spark/current/pyspark")


def test_the_releases_python_finds_the_installed_version() -> None:
    assert Path(pyspark.__file__).parent.samefile(HOME), pyspark.__file__
    assert pyspark.__version__ in Path("/opt/spark/current").resolve().name


def test_spark_submit_runs() -> None:
    environment = {**os.environ, "SPARK_HOME": str(HOME), "SPARK_CONF_DIR": "/etc/spark/conf"}
    said = subprocess.run(
        [HOME / "bin" / "spark-submit", "--version"], check=True, capture_output=True, text=True, env=environment
    )
    assert pyspark.__version__ in said.stderr
