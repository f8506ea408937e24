"""Spark's distribution is complete: the release's Python finds it, and its programs run."""

import os
import subprocess
from pathlib import Path

import pyspark

HOME = Path("/opt/spark/current/pyspark")


def test_the_releases_python_finds_the_installed_version() -> None:
    assert Path(pyspark.__file__).parent.samefile(HOME), pyspark.__file__
    assert pyspark.__version__ in Path("/opt/spark/current").resolve().name


def test_the_connector_is_whole() -> None:
    jars = {jar.name.rsplit("-", 1)[0] for jar in Path("/opt/spark/connector/current").glob("*.jar")}
    assert jars == {
        "spark-sql-kafka-0-10_2.13",
        "spark-token-provider-kafka-0-10_2.13",
        "kafka-clients",
        "commons-pool2",
    }


def test_spark_submit_runs() -> None:
    environment = {**os.environ, "SPARK_HOME": str(HOME), "SPARK_CONF_DIR": "/etc/spark/conf"}
    said = subprocess.run(
        [HOME / "bin" / "spark-submit", "--version"], check=True, capture_output=True, text=True, env=environment
    )
    assert pyspark.__version__ in said.stderr
