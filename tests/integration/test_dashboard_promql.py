"""The dashboards' PromQL on a real Prometheus: every query parses, and invalid or empty ones are reported."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dashboard_queries
import pytest
import yaml
from dashboard_queries import Prometheus, boards, wrong_in_prometheus
from ports import free_port
from prometheus import job, started

from streampulse_ops.monitoring import promtools


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes itself."""
    port = free_port()

    def ready(url: str) -> bool:
        return bool(Prometheus(url).series("up == 1", over_time=False))

    with started(tmp_path_factory.mktemp("prometheus"), port, [job("prometheus", port, "here")], ready) as url:
        yield Prometheus(url)


def test_every_query_parses(prometheus: Prometheus) -> None:
    assert wrong_in_prometheus(prometheus, need_series=False) == []


def test_an_empty_query_is_reported_and_one_with_data_is_not(prometheus: Prometheus) -> None:
    wrong = wrong_in_prometheus(prometheus)
    assert any(line.startswith("streampulse-kafka · Brokers (1 A): no series") for line in wrong)
    assert any(line.startswith("streampulse-kafka · variable host: no values") for line in wrong)
    # It has scraped only itself.
    assert not any(line.startswith("streampulse-overview · Services (1 A)") for line in wrong)
    assert not any("prometheus_tsdb_head_series" in line for line in wrong)


def test_a_query_that_does_not_parse_is_reported(
    prometheus: Prometheus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = boards()["streampulse-kafka"]
    board["panels"][1]["targets"][0]["expr"] = "sum(rate(up[5m])"
    (tmp_path / "streampulse-kafka.json").write_text(json.dumps(board))
    monkeypatch.setattr(dashboard_queries, "FOLDER", tmp_path)
    (line,) = wrong_in_prometheus(prometheus, need_series=False)
    assert "parse error" in line


#: The start of each version in units of ten seconds; an empty version is an outage.
HISTORIES = [
    ([(0, "1.0"), (60, "1.1")], {60: "1.1", 62: "1.1"}, "a deploy"),
    ([(0, "1.0"), (60, "")], {59: "", 120: ""}, "an end"),
    ([(0, "1.0"), (60, ""), (62, "1.0")], {62: "", 70: ""}, "a restart"),
    ([(0, "1.0"), (60, ""), (140, "1.0")], {140: "", 150: ""}, "a long outage"),
    ([(0, "1.0"), (60, ""), (140, "1.1")], {140: "1.1", 150: ""}, "a long outage that a deploy ended"),
    ([(0, "1.0"), (60, "1.1"), (200, "1.0")], {130: "", 200: "1.0"}, "a roll-back"),
]


def case(history: list[tuple[int, str]], expected: dict[int, str], what: str) -> dict[str, Any]:
    """Return a test of promtool: the annotation's series at some moments of a history."""
    marks = {mark["name"]: mark["expr"] for mark in boards()["streampulse-overview"]["annotations"]["list"]}
    last = 240
    ends = [begin for begin, _ in history[1:]] + [last]
    series = []
    for version in sorted({version for _, version in history if version}):
        values = ["_"] * last
        for (begin, ran), end in zip(history, ends, strict=True):
            if ran == version:
                values[begin:end] = ["1"] * (end - begin)
                if end < last:
                    values[end] = "stale"
        series.append({"series": f'streampulse_job_build_info{{version="{version}"}}', "values": " ".join(values)})
    asked = [
        {
            "expr": marks["Deploys of the job"],
            "eval_time": f"{10 * at}s",
            "exp_samples": [{"labels": f'{{version="{version}"}}', "value": 1}] if version else [],
        }
        for at, version in expected.items()
    ]
    return {"name": what, "interval": "10s", "input_series": series, "promql_expr_test": asked}


def test_a_deploy_is_marked_and_an_outage_is_not(tmp_path: Path) -> None:
    test = {"rule_files": [], "evaluation_interval": "10s", "tests": [case(*history) for history in HISTORIES]}
    (tmp_path / "deploys.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [promtools.find("promtool", print), "test", "rules", str(tmp_path / "deploys.yml")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
