"""The API while PostgreSQL is stopped, crashed, hanging, slow or not migrated: it reports that and recovers."""

import asyncio
import concurrent.futures
import contextlib
import signal
import time
from collections.abc import Iterator

import psycopg2.errors
import pytest
from api_client import make_app
from conftest import own_server
from fastapi.testclient import TestClient
from postgres import WRITER, PostgresServer

from streampulse.api.database import Database as ApiDatabase
from streampulse.core.settings import ApiSettings
from streampulse.host.migrate import migrate

pytestmark = pytest.mark.postgres

PATHS = ["/metrics", "/metrics/latest", "/metrics/history", "/state", "/streams/top"]


@pytest.fixture(scope="module")
def own() -> Iterator[tuple[PostgresServer, str]]:
    with own_server() as made:
        yield made


@pytest.fixture
def server(own: tuple[PostgresServer, str]) -> PostgresServer:
    return own[0]


@pytest.fixture
def database(own: tuple[PostgresServer, str]) -> str:
    return own[1]


@pytest.fixture
def client(server: PostgresServer, database: str) -> Iterator[TestClient]:
    app = make_app(server.settings(database, "streampulse_reader"), statement_timeout_ms=300, stale_seconds=0)
    with TestClient(app) as client:
        assert client.get("/health").status_code == 200
        yield client


def expect_well(client: TestClient) -> None:
    """Wait a few seconds until every path answers again."""
    deadline = time.monotonic() + 10
    for path in ["/health", *PATHS]:
        while client.get(path).status_code != 200:
            assert time.monotonic() < deadline, client.get(path).text
            time.sleep(0.1)


def expect_away(client: TestClient) -> None:
    for path in PATHS:
        deadline = time.monotonic() + 20
        while client.get(path).status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        started = time.monotonic()
        response = client.get(path)
        # Two seconds to connect, one second and the statement's limit; doubled for a busy machine.
        assert time.monotonic() - started < 7
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert list(response.json()) == ["error"]
    health = client.get("/health")
    assert health.status_code == 503
    assert health.json()["ok"] is False
    assert health.json()["error"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_away_and_back(client: TestClient, server: PostgresServer, how: signal.Signals) -> None:
    for path in PATHS:
        assert client.get(path).status_code == 200
    server.stop(how)
    try:
        expect_away(client)
        deadline = time.monotonic() + 20
        while "Connection refused" not in client.get("/health").json()["error"]:
            assert time.monotonic() < deadline
        assert client.get("/").status_code == 200
        text = client.get("/prometheus").text
        assert 'streampulse_api_database_failures_total{cause="connection"}' in text
    finally:
        server.start()
    expect_well(client)


def test_restart_between_requests_is_not_noticed(server: PostgresServer, database: str) -> None:
    with TestClient(make_app(server.settings(database, "streampulse_reader"))) as client:
        for path in [*PATHS, "/health"]:
            assert client.get(path).status_code == 200
        server.stop()
        server.start()
        for path in [*PATHS, "/health", "/metrics?stream_id=__probe"]:
            assert client.get(path).status_code == 200


def test_numbers_are_given_as_stale_up_to_the_limit_and_no_longer(server: PostgresServer, database: str) -> None:
    with TestClient(make_app(server.settings(database), stale_seconds=3)) as client:
        for path in PATHS:
            response = client.get(path)
            assert response.status_code == 200
            assert float(response.headers["x-snapshot-age"]) < 3
            assert "x-snapshot-stale" not in response.headers
        server.stop()
        stopped = time.monotonic()
        try:
            while "x-snapshot-stale" not in client.get("/metrics").headers:
                assert time.monotonic() < stopped + 2
            seen = set()
            while time.monotonic() < stopped + 2:
                response = client.get("/state")
                assert (response.status_code, response.headers["x-snapshot-stale"]) == (200, "true")
                seen.add(response.headers["x-snapshot-age"])
            # The age is that of the numbers, and grows.
            assert max(map(float, seen)) > 1
            while client.get("/state").status_code == 200:
                assert time.monotonic() < stopped + 5
            assert time.monotonic() > stopped + 2
            expect_away(client)
        finally:
            server.start()
        expect_well(client)
        assert "x-snapshot-stale" not in client.get("/state").headers


def test_hanging_server_costs_bounded_time(client: TestClient, server: PostgresServer) -> None:
    server.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        expect_away(client)
        # Also after a long hang the numbers are back as soon as the server is.
        time.sleep(max(0.0, stopped + 6 - time.monotonic()))
    finally:
        server.signal(signal.SIGCONT)
    back = time.monotonic()
    while client.get("/metrics").status_code != 200:
        assert time.monotonic() < back + 4
        time.sleep(0.05)
    expect_well(client)


def test_slow_queries_end_and_health_does_not_wait_for_them(
    client: TestClient, server: PostgresServer, database: str
) -> None:
    """A lock on the table makes every query slow: each is cancelled, too many are refused, health still answers."""
    with contextlib.closing(server.connect(WRITER, database)) as writer, writer.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE stream_metrics_minute IN ACCESS EXCLUSIVE MODE")
        with concurrent.futures.ThreadPoolExecutor(80) as threads:
            started = time.monotonic()
            # Each asks a different question, so that none shares another's answer.
            slow = [threads.submit(client.get, f"/metrics?stream_id=__{number}") for number in range(80)]
            time.sleep(0.1)
            health = client.get("/health")
            assert health.status_code == 200
            assert time.monotonic() - started < 2
            answers = [future.result() for future in slow]
        assert {answer.status_code for answer in answers} == {503}
        errors = {answer.json()["error"] for answer in answers}
        assert "the query took longer than 300 ms" in errors
        assert "too many requests are waiting for the database" in errors
        cursor.execute("ROLLBACK")
    expect_well(client)


def test_connections_are_bounded(client: TestClient, server: PostgresServer, database: str) -> None:
    with concurrent.futures.ThreadPoolExecutor(20) as threads:
        list(threads.map(client.get, [f"{path}?limit={number}" for number in range(1, 20) for path in PATHS[:4]]))
        list(threads.map(client.get, [f"/state?stream_id=__{number}" for number in range(100)]))
    with contextlib.closing(server.connect(WRITER, database)) as writer, writer.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'streampulse-api'")
        row = cursor.fetchone()
    assert row is not None
    # Two for queries, one for health, one for the snapshot.
    assert 2 <= row[0] <= 4


def test_a_database_without_tables_is_unavailable_until_it_is_migrated(server: PostgresServer) -> None:
    name = server.create_database()
    with TestClient(make_app(server.settings(name), pool_size=1)) as client:
        response = client.get("/metrics")
        assert response.status_code == 503
        assert "the schema is not ready" in response.json()["error"]
        migrate(server.settings(name))
        expect_well(client)


def test_nothing_can_be_written(server: PostgresServer, database: str) -> None:
    """Even with the writing role's credentials the API's connections only read."""
    settings = ApiSettings(port=1, pool_size=1)
    api = ApiDatabase(server.settings(database, WRITER), settings)

    def write(cursor: object) -> None:
        cursor.execute("INSERT INTO event_clock DEFAULT VALUES")  # type: ignore[attr-defined]

    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        asyncio.run(api.run(write))
    api.close()
