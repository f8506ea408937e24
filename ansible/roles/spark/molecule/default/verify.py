"""Asserts that Spark's distribution is whole: the release's Python finds it, and its programs run."""

import os
import subprocess
from pathlib import Path

import pyspark

HOME = Path("/opt/spark/current/pyspark")
assert Path(pyspark.__file__).parent.samefile(HOME), f"pyspark comes from {pyspark.__file__}"
assert pyspark.__version__ in Path("/opt/spark/current").resolve().name
jars = {jar.name.rsplit("-", 1)[0] for jar in Path("/opt/spark/connector/current").glob("*.jar")}
assert jars == {
    "spark-sql-kafka-0-10_2.13",
    "spark-token-provider-kafka-0-10_2.13",
    "kafka-clients",
    "commons-pool2",
}, jars
said = subprocess.run(
    [HOME / "bin" / "spark-submit", "--version"], check=True, capture_output=True, text=True,
    env={**os.environ, "SPARK_HOME": str(HOME), "SPARK_CONF_DIR": "/etc/spark/conf"},
)  # fmt: skip
assert pyspark.__version__ in said.stderr, said.stderr
