"""Spark: the wheel of pyspark, built once from its hash-pinned source package.

A host installs the wheel in seconds; the source package takes most of a minute.
"""

import re
import tempfile
from pathlib import Path

from streampulse_ops.artifacts.python import pip, virtual_environment
from streampulse_ops.artifacts.store import ArtifactSet, digest_of
from streampulse_ops.machines import Report


def spark_set(root: Path) -> ArtifactSet:
    """Return the set with pyspark's wheel."""
    source, tools = root / "requirements/spark.lock", root / "requirements/build.lock"
    version = re.search(r"^pyspark==(\S+)", source.read_text(encoding="utf-8"), re.MULTILINE)

    def make(folder: Path, _report: Report) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            python = virtual_environment(Path(scratch) / "venv", tools)
            arguments = ["wheel", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--require-hashes"]
            pip(python, [*arguments, "--wheel-dir", str(folder), "-r", str(source)], "pyspark", Path(scratch))

    return ArtifactSet(
        "spark",
        digest_of(source.read_bytes(), tools.read_bytes()),
        make,
        "building Spark's wheel, once (about 60 s)",
        {"version": version.group(1) if version else "unknown"},
    )
