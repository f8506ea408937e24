"""/streams/top over a day: exact, and answered for many clients at once."""

from __future__ import annotations

import concurrent.futures
from typing import get_args

import httpx
import pytest
from conftest import Database
from gunicorn_server import running

from streampulse.api.queries import Ranking

pytestmark = pytest.mark.postgres

STREAMS = 1_000
MINUTES = 1_440
#: Rows between two minutes with rows, so that the test fills a day in seconds.
STEP = 12


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
