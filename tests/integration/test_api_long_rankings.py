"""/streams/top over a day: exact, and answered for many clients at once."""

import concurrent.futures
from typing import get_args

import httpx
import pytest
from api_client import make_app
from conftest import Database
from fastapi.testclient import TestClient
from gunicorn_server import running

from streampulse.api import runtime
from streampulse.api.queries import Ranking, Row
from streampulse.api.questions import ranked

pytestmark = pytest.mark.postgres

STREAMS = 1_000
MINUTES = 1_440
#: Rows between two minutes with rows, so that the test fills a day in seconds.
STEP = 36


def test_a_day_of_a_thousand_streams_for_eight_clients_at_once(database: Database) -> None:
    database.execute(
        "INSERT INTO stream_metrics_minute SELECT timestamptz '2026-05-01T12:00Z' - m * interval '1 min', 's-' || s,"
        " s, 2, s * 0.01, m, 1, s + m, s * 2 - m %% 7"
        " FROM generate_series(0, %s, %s) AS m, generate_series(1, %s) AS s",
        (MINUTES - 1, STEP, STREAMS),
    )
    database.execute("ANALYZE stream_metrics_minute")
    rankings = [*get_args(Ranking), "chat_messages"]
    with running(database, workers=1) as server:
        with concurrent.futures.ThreadPoolExecutor(len(rankings)) as threads:
            answers = list(
                threads.map(
                    lambda by: httpx.get(f"{server.url}/streams/top?minutes={MINUTES}&by={by}&n=1000", timeout=60),
                    rankings,
                )
            )
        assert [answer.status_code for answer in answers] == [200] * len(rankings)
    windows = MINUTES // STEP
    for by, answer in zip(rankings, answers, strict=True):
        rows = answer.json()["rows"]
        assert len(rows) == STREAMS
        values = [float(row[by]) for row in rows]
        assert values == sorted(values, reverse=True)
        row = next(row for row in rows if row["stream_id"] == "s-7")
        assert row == {
            "stream_id": "s-7",
            "chat_messages": 7 * windows,
            "donations": 2 * windows,
            "donations_usd": f"{0.07 * windows:.2f}",
            "joins": sum(range(0, MINUTES, STEP)),
            "leaves": windows,
            "unique_viewers": 7 + (windows - 1) * STEP,
            "active_viewers": 14,
        }


def test_a_ranking_is_computed_once_for_the_sums_of_a_span(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []

    def noted(rows: list[Row], by: Ranking, n: int) -> list[Row]:
        computed.append(n)
        return ranked(rows, by, n)

    monkeypatch.setattr(runtime, "ranked", noted)
    # The interval is also the time for which the sums serve.
    with TestClient(make_app(database.settings(), snapshot_interval_ms=10_000)) as client:
        for n in (5, 5, 6, 5):
            assert client.get(f"/streams/top?minutes={MINUTES}&n={n}").json() == {"rows": []}
    assert computed == [5, 6]
