"""A real Prometheus with streampulse's rules."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from stack import until

from streampulse_ops.monitoring import promtools, rules


@contextmanager
def started(folder: Path, port: int, jobs: list[dict[str, Any]], ready: Callable[[str], bool]) -> Iterator[str]:
    """Run Prometheus and yield its address once it is ready; rules are evaluated every second."""
    try:
        program = promtools.find("prometheus", print)
    except promtools.Unavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must run the tests of Prometheus, and cannot: {error}")
        pytest.skip(str(error))
    for file in rules.write(folder / "rules"):
        file.write_text(re.sub("interval: .*", "interval: 1s", file.read_text()))
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [f"{folder}/rules/*.yml"],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration), encoding="utf-8")
    options = [
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, *options], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: process.poll() is not None or ready(url), 60, "Prometheus is ready")
        assert process.poll() is None, (folder / "log").read_text()
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def job(name: str, port: int, host: str) -> dict[str, Any]:
    """Return a job that scrapes one port of this machine as a host's."""
    return {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"host": host}}]}
