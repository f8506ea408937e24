"""Asking Prometheus and Alertmanager: a missing or strange answer is one line with the command that helps."""

import base64
import json
from collections.abc import Iterator

import pytest
from monitoring_server import Told, serving

from streampulse.core.errors import OperatorError
from streampulse.host import cli
from streampulse.host.slo.server import Alertmanager, NotFound, Prometheus

QUERY = "GET /api/v1/query"


@pytest.fixture
def told() -> Iterator[Told]:
    with serving() as running:
        yield running


def vector(*series: tuple[dict[str, str], str]) -> tuple[int, dict[str, object]]:
    result = [{"metric": labels, "value": [1.0, value]} for labels, value in series]
    return 200, {"status": "success", "data": {"resultType": "vector", "result": result}}


def test_values_that_are_no_numbers_are_none(told: Told) -> None:
    told.answers[QUERY] = vector(({"a": "1"}, "0.5"), ({}, "NaN"), ({}, "+Inf"))
    found = Prometheus(told.settings()).query("up")
    assert [(dict(labels), value) for labels, value in found] == [({"a": "1"}, 0.5), ({}, None), ({}, None)]
    assert told.asked[0].path == "/api/v1/query?query=up"
    assert told.asked[0].headers["Authorization"] is None


def test_name_and_password_are_sent_where_there_are_any(told: Told) -> None:
    told.answers[QUERY] = vector()
    Prometheus(told.settings("streampulse", "secret")).query("up")
    assert told.asked[0].headers["Authorization"] == f"Basic {base64.b64encode(b'streampulse:secret').decode()}"


@pytest.mark.parametrize(
    ("status", "document", "said"),
    [
        (401, "", "takes neither this host's name nor its password: inv up --full"),
        (503, b"not ready", r"answers 503 \(not ready\): inv logs prometheus"),
        (500, b"", "answers 500: inv logs prometheus"),
        (200, b"<html>", "an answer that is not JSON: inv logs prometheus"),
        (200, {"status": "error"}, "does not answer as Prometheus does"),
        (200, [], "does not answer as Prometheus does"),
        (200, {"status": "success", "data": {"resultType": "matrix", "result": []}}, "with a matrix, not a vector"),
    ],
)
def test_an_answer_that_is_none_is_one_line(told: Told, status: int, document: object, said: str) -> None:
    told.answers[QUERY] = (status, document)
    with pytest.raises(OperatorError, match=said) as caught:
        Prometheus(told.settings("u", "very-secret")).query("up")
    assert "\n" not in str(caught.value)
    assert "very-secret" not in str(caught.value)


def test_a_server_that_is_away(told: Told) -> None:
    settings = told.settings()
    settings.alertmanager_url = "http://127.0.0.1:9"
    with pytest.raises(OperatorError, match=r"alertmanager does not answer at http://127.0.0.1:9 \(.*refused\): inv"):
        Alertmanager(settings).alerts()


def test_a_missing_object_is_not_found(told: Told) -> None:
    with pytest.raises(NotFound):
        Alertmanager(told.settings()).silence("x/../y")
    assert told.asked[0].path == "/api/v2/silence/x%2F..%2Fy"


def test_an_alertmanager_that_is_none(told: Told) -> None:
    told.answers["GET /api/v2/alerts"] = (200, {"status": "success"})
    with pytest.raises(OperatorError, match="does not answer as Alertmanager does"):
        Alertmanager(told.settings()).alerts()


@pytest.fixture
def watching(told: Told, monkeypatch: pytest.MonkeyPatch) -> Told:
    """Be a host that watches, with one alert and a target that is down."""
    monkeypatch.setenv("STREAMPULSE_MONITORING_PROMETHEUS_URL", told.url)
    monkeypatch.setenv("STREAMPULSE_MONITORING_ALERTMANAGER_URL", told.url)
    for name in ("USER", "PASSWORD"):
        monkeypatch.delenv(f"STREAMPULSE_MONITORING_{name}", raising=False)
    labels = {"alertname": "KafkaDown", "severity": "page", "service": "kafka", "host": "a"}
    told.answers = {
        QUERY: vector(),
        f"{QUERY}?query=vector": vector(({}, "100")),
        f"{QUERY}?query=streampulse_probe": (
            200,
            {"status": "success", "data": {"resultType": "matrix", "result": []}},
        ),
        f"{QUERY}?query=%7B__name__": vector(({"__name__": "slo:objective:ratio", "slo": "latency"}, "0.99")),
        "GET /api/v1/targets": (
            200,
            {
                "status": "success",
                "data": {
                    "activeTargets": [
                        {"labels": {"job": "kafka", "host": "a", "instance": "i"}, "health": "down", "lastError": "no"}
                    ]
                },
            },
        ),
        "GET /api/v1/alerts": (
            200,
            {
                "status": "success",
                "data": {
                    "alerts": [
                        {"labels": labels, "state": "firing", "activeAt": "2026-01-31T12:00:00.123456789Z"},
                        {"labels": labels, "state": "pending", "activeAt": "2026-01-31T12:00:00Z"},
                    ]
                },
            },
        ),
        "GET /api/v2/alerts": (
            200,
            [
                {
                    "labels": {"alertname": "Watchdog", "severity": "none"},
                    "startsAt": "2026-01-31T12:00:00Z",
                    "status": {},
                },
                {
                    "labels": labels,
                    "annotations": {"summary": "Kafka is away"},
                    "startsAt": "2026-01-31T12:00:00.5Z",
                    "status": {"state": "suppressed", "silencedBy": ["1"], "inhibitedBy": []},
                },
            ],
        ),
    }
    return told


@pytest.mark.usefixtures("watching")
def test_the_whole_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["slo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["time"] == 100
    assert [alert["name"] for alert in found["alerts"]] == ["KafkaDown"]
    assert found["alerts"][0]["silenced"]
    assert found["alerts"][0]["since"] == 1769860800.5
    assert not found["targets"][0]["up"]
    assert found["figures"]["lag_seconds"] is None
    assert found["problems"] == []


def test_without_alertmanager_the_alerts_come_from_prometheus(
    watching: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    watching.answers["GET /api/v2/alerts"] = (500, b"")
    assert cli.main(["slo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(alert["name"], alert["silenced"]) for alert in found["alerts"]] == [("KafkaDown", False)]
    assert "whether alerts are silenced is not known" in found["problems"][0]


@pytest.mark.parametrize(
    ("fired", "missing"), [("1970-01-01T00:02:10Z", []), ("1970-01-01T00:00:30Z", ["Watchdog", "Prometheus"])]
)
def test_a_missing_switch_and_missing_rules_are_problems_except_shortly_after_a_start(
    watching: Told, capsys: pytest.CaptureFixture[str], fired: str, missing: list[str]
) -> None:
    watching.answers["GET /api/v2/alerts"] = (200, [])
    watching.answers[f"{QUERY}?query=%7B__name__"] = vector()
    watching.answers[f"{QUERY}?query=vector"] = vector(({}, "200"))
    switch = {"labels": {"alertname": "Watchdog", "severity": "none"}, "state": "firing", "activeAt": fired}
    watching.answers["GET /api/v1/alerts"] = (200, {"status": "success", "data": {"alerts": [switch]}})
    assert cli.main(["slo", "--json"]) == 0
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [problem.partition(" ")[0].rstrip(",") for problem in problems] == missing
    assert all("inv logs prometheus" in problem for problem in problems)


def test_a_host_without_monitoring(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("STREAMPULSE_MONITORING_PROMETHEUS_URL", raising=False)
    assert cli.main(["slo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) is None
    assert cli.main(["slo"]) == 1
    assert "has no monitoring" in capsys.readouterr().err
