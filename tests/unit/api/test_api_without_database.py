"""Responses without a database: refusals come before a query, and a missing database costs little time."""

import re
import socket
import time
from collections.abc import Iterator

import pytest
from api_client import make_app
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from streampulse.api.database import Database
from streampulse.core.settings import PostgresSettings


def app_at(port: int) -> FastAPI:
    postgres = PostgresSettings(
        host="127.0.0.1", port=port, database="d", user="u", password=SecretStr("hidden-word"), sslmode="disable"
    )
    return make_app(postgres, statement_timeout_ms=100)


@pytest.fixture
def client() -> Iterator[TestClient]:
    """Serve an API whose database port refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with TestClient(app_at(taken.getsockname()[1])) as client:
            yield client


def test_a_refused_connection_is_reported_quickly_and_without_secrets(client: TestClient) -> None:
    started = time.monotonic()
    for path in ("/metrics", "/metrics/latest", "/metrics/history", "/state", "/streams/top"):
        response = client.get(path)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.json() == {"error": "PostgreSQL does not answer: Connection refused"}
    health = client.get("/health").json()
    assert list(health) == ["ok", "error"]
    assert health["ok"] is False
    assert re.fullmatch(
        r"PostgreSQL does not answer: Connection refused, since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", health["error"]
    )
    assert time.monotonic() - started < 3
    assert "hidden-word" not in str(health)


def test_numbers_that_were_never_read_are_as_old_as_the_worker(client: TestClient) -> None:
    time.sleep(0.6)
    names = "streampulse_api_snapshot_timestamp_seconds", "streampulse_api_snapshot_age_seconds"
    scraped = client.get("/prometheus").text
    found = [float(re.findall(rf"^{name} (\S+)$", scraped, re.MULTILINE)[0]) for name in names]
    assert time.time() - 60 < found[0] < time.time() - 0.5
    assert 0.2 < found[1] < 60


def test_a_request_without_an_answer_is_a_warning_in_the_log(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="streampulse.api.access")
    client.get("/metrics?stream_id=red")
    client.get("/metrics?minutes=none")
    served, refused = [record for record in caplog.records if record.name == "streampulse.api.access"]
    assert (served.levelname, refused.levelname) == ("WARNING", "INFO")
    assert served.fields["query"] == "stream_id=red"  # type: ignore[attr-defined]


def test_a_server_that_never_answers_costs_bounded_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with TestClient(app_at(silent.getsockname()[1])) as client:
            started = time.monotonic()
            response = client.get("/metrics")
            assert time.monotonic() - started < 4
    assert response.status_code == 503
    assert "hidden-word" not in response.text


def test_an_unexpected_error_is_a_plain_500_with_the_request_id(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        app = app_at(taken.getsockname()[1])

        async def broken(*_: object) -> None:
            raise RuntimeError("inner detail")

        monkeypatch.setattr(Database, "run", broken)
        with TestClient(app, raise_server_exceptions=False) as client:
            response = client.get("/metrics?stream_id=__probe", headers={"X-Request-ID": "r-7"})
            assert response.status_code == 500
            assert response.json() == {"error": "internal error, see the API's log for request r-7"}
            assert response.headers["x-request-id"] == "r-7"
            assert 'route="/metrics",status="500"' in client.get("/prometheus").text


def test_a_bad_parameter_is_refused_before_the_database_is_asked(client: TestClient) -> None:
    response = client.get("/metrics?minutes=1441&limit=x")
    assert response.status_code == 422
    assert response.json() == {
        "error": "minutes: an integer from 1 to 1440, not '1441'; limit: an integer from 1 to 1000, not 'x'",
        "parameters": [
            {"parameter": "minutes", "value": "1441", "allowed": "an integer from 1 to 1440"},
            {"parameter": "limit", "value": "x", "allowed": "an integer from 1 to 1000"},
        ],
    }
