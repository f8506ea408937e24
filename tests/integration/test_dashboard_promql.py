"""The dashboards' PromQL before a real Prometheus: everything parses, and what does not, or finds nothing, is told."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_queries import Prometheus, boards, wrong_in_prometheus
from stack import until

from streampulse.ops import promtools

ROOT = Path(__file__).parents[2]
CONFIGURATION = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}/*.yml"]
scrape_configs:
  - job_name: prometheus
    static_configs: [{{targets: ["{address}"], labels: {{host: here}}}}]
"""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    try:
        program = promtools.find("prometheus", print)
    except promtools.Unavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must ask the dashboards' queries, and cannot: {error}")
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("prometheus")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "prometheus.yml").write_text(CONFIGURATION.format(rules=ROOT / "prometheus/rules", address=address))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        asked = Prometheus(f"http://{address}")
        until(lambda: bool(asked.series("up == 1", over_time=False)), 30, "Prometheus has looked at itself")
        yield asked
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_every_query_parses(prometheus: Prometheus) -> None:
    assert wrong_in_prometheus(prometheus, need_series=False) == []


def test_what_finds_nothing_is_told_and_what_finds_something_is_not(prometheus: Prometheus) -> None:
    wrong = wrong_in_prometheus(prometheus)
    assert any(line.startswith("streampulse-kafka · Brokers (1 A): no series") for line in wrong)
    assert any(line.startswith("streampulse-kafka · variable host: no values") for line in wrong)
    # It has looked at itself, and nothing else.
    assert not any(line.startswith("streampulse-overview · Services (1 A)") for line in wrong)
    assert not any("prometheus_tsdb_head_series" in line for line in wrong)


def broken(board: dict[str, Any]) -> None:
    board["panels"][1]["targets"][0]["expr"] = "sum(rate(up[5m])"


def broken_annotation(board: dict[str, Any]) -> None:
    board["annotations"]["list"][0]["expr"] = "count by (version ("


def broken_variable(board: dict[str, Any]) -> None:
    board["templating"]["list"][1]["query"]["query"] = 'label_values(up{job="kafka", host)'


@pytest.mark.parametrize("break_it", [broken, broken_annotation, broken_variable])
def test_a_query_that_does_not_parse_is_told(prometheus: Prometheus, tmp_path: Path, break_it: Any) -> None:
    board = boards()["streampulse-kafka"]
    break_it(board)
    (tmp_path / "streampulse-kafka.json").write_text(json.dumps(board))
    (line,) = wrong_in_prometheus(prometheus, tmp_path, need_series=False)
    assert "parse error" in line
