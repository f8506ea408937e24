"""``streampulse slo`` with a real Prometheus and streampulse's rules: every query is accepted."""

import json
import time
from collections.abc import Iterator

import httpx
import pytest
from ports import free_port
from prometheus import job, started

from streampulse.host import cli
from streampulse_ops.monitoring import rules


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a Prometheus that scrapes itself as kafka on a, and a missing target as api on b; return its address."""
    port = free_port()
    jobs = [job("kafka", port, "a"), job("api", free_port(), "b")]
    with started(tmp_path_factory.mktemp("prometheus"), port, jobs, ready) as url:
        yield url


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
