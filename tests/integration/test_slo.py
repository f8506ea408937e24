"""``streampulse slo`` with a real Prometheus and streampulse's rules: every query is accepted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest
from ports import free_port

from streampulse.host import cli
from streampulse_ops.monitoring import promtools, rules


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a Prometheus that scrapes itself as kafka on a, and a missing target as api on b; return its address."""
    try:
        program = promtools.find("prometheus", print)
    except promtools.Unavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must run the tests of Prometheus, and cannot: {error}")
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("prometheus")
    port, nobody = free_port(), free_port()
    for file in rules.write(folder / "rules"):
        # The objectives are recorded at once, not after half a minute.
        file.write_text(re.sub("interval: .*", "interval: 1s", file.read_text()))
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{number}"], "labels": {"host": host}}]}
        for name, number, host in (("kafka", port, "a"), ("api", nobody, "b"))
    ]
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [f"{folder}/rules/*.yml"],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration), encoding="utf-8")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 60
            while not ready(url):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=20)


def ready(url: str) -> bool:
    """Return whether it has scraped its targets and recorded the objectives."""
    try:
        found = httpx.get(f"{url}/api/v1/query", params={"query": "count(slo:objective:ratio) and count(up) == 2"})
    except httpx.HTTPError:
        return False
    return bool(found.status_code == httpx.codes.OK and found.json()["data"]["result"])


def test_it_takes_every_question(
    prometheus: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMPULSE_MONITORING_PROMETHEUS_URL", prometheus)
    # No Alertmanager runs: the firing alerts are Prometheus' own view.
    monkeypatch.setenv("STREAMPULSE_MONITORING_ALERTMANAGER_URL", "http://127.0.0.1:9")
    assert cli.main(["slo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {promise["name"]: promise["objective"] for promise in found["promises"]} == {
        name: next(iter(vars(slo.indicators).values())).objective
        for name, slo in vars(rules.values().objectives).items()
    }
    assert found["time"] == pytest.approx(time.time(), abs=10)
    assert [(target["job"], target["host"], target["up"]) for target in found["targets"]] == [
        ("api", "b", False),
        ("kafka", "a", True),
    ]
    assert "refused" in found["targets"][0]["error"]
    assert all(value is None for value in found["figures"].values())
    assert len(found["problems"]) == 1
    assert found["problems"][0].startswith("whether alerts are silenced is not known: alertmanager does not answer")
    # A range ends with its newest whole step, which may be before the first scrape.
    jobs, deadline = set[str](), time.monotonic() + 60
    while jobs != {"api", "kafka"} and time.monotonic() < deadline:
        assert cli.main(["slo", "--history", "600"]) == 0
        series = json.loads(capsys.readouterr().out)
        jobs = {each["labels"]["job"] for each in series if each["labels"].get("__name__") == "up"}
    assert jobs == {"api", "kafka"}
    assert all(time.time() - float(each["values"][-1][0]) < 60 for each in series)
