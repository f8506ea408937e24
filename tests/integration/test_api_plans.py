"""Cost of the API's statements on a table with a long history: index reads of the needed rows only."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2.extensions
import pytest
from conftest import Database, own_database
from plans import nodes, rows_read
from postgres import PostgresServer

from streampulse.api import queries

pytestmark = pytest.mark.postgres

STREAMS = 60
MINUTES = 5_000
NEWEST = datetime(2026, 5, 4, 11, 19, tzinfo=UTC)


@pytest.fixture(scope="module")
def full(postgres_server: PostgresServer, migrated_template: str) -> Iterator[Database]:
    """300,000 rows of ordinary streams, and an internal probe that continued for days after they ended."""
    with own_database(postgres_server, migrated_template) as database:
        database.execute(
            "INSERT INTO stream_metrics_minute SELECT %s - m * interval '1 min', 's-' || s, m, s, s, 0, 0, 0, 0"
            " FROM generate_series(0, %s) AS m, generate_series(1, %s) AS s",
            (NEWEST, MINUTES - 1, STREAMS),
        )
        database.execute(
            "INSERT INTO stream_metrics_minute SELECT %s + m * interval '1 min', '__probe', 1, 0, 0, 0, 0, 0, 0"
            " FROM generate_series(-2000, 20000) AS m",
            (NEWEST,),
        )
        database.execute(
            "INSERT INTO stream_presence"
            " SELECT DISTINCT stream_id, 1, NULL::timestamptz, now() FROM stream_metrics_minute"
        )
        database.execute("UPDATE event_clock SET clock = %s", (NEWEST + timedelta(seconds=30),))
        database.execute("ANALYZE")
        yield database


class Explaining:
    """A cursor that explains each statement before it runs it."""

    def __init__(self, cursor: psycopg2.extensions.cursor) -> None:
        self._cursor = cursor
        self.plans: list[dict[str, Any]] = []

    def execute(self, statement: Any, parameters: Any = None) -> None:
        text = self._cursor.mogrify(statement, parameters).decode()
        self._cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + text)
        row = self._cursor.fetchone()
        assert row is not None
        self.plans.append(row[0][0]["Plan"])
        self._cursor.execute(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


CASES: dict[str, tuple[Callable[[Any], Any], int]] = {
    "metrics": (lambda c: queries.windows(c, minutes=10, limit=5, stream_id=None), 6),
    "metrics, a day": (lambda c: queries.windows(c, minutes=1440, limit=1000, stream_id=None), 1001),
    "metrics of a stream": (lambda c: queries.windows(c, minutes=10, limit=100, stream_id="s-7"), 11),
    "metrics of a probe": (lambda c: queries.windows(c, minutes=10, limit=100, stream_id="__probe"), 12),
    "metrics of nobody": (lambda c: queries.windows(c, minutes=1440, limit=100, stream_id="nobody"), 1),
    "history": (
        lambda c: queries.windows(c, minutes=10, limit=100, stream_id=None, oldest_first=True),
        10 * STREAMS + 1,
    ),
    "history, a day": (lambda c: queries.windows(c, minutes=1440, limit=1000, stream_id=None, oldest_first=True), 1101),
    "history of a stream": (
        lambda c: queries.windows(c, minutes=1440, limit=1440, stream_id="s-7", oldest_first=True),
        1441,
    ),
    "latest": (lambda c: queries.latest(c, limit=100, after="", stream_id=None), STREAMS),
    "latest, a page": (lambda c: queries.latest(c, limit=10, after="s-3", stream_id=None), 10),
    "latest of a stream": (lambda c: queries.latest(c, limit=100, after="", stream_id="s-7"), 1),
    "state": (lambda c: queries.state(c, limit=100, after="", stream_id=None), 0),
    "state of a stream": (lambda c: queries.state(c, limit=100, after="", stream_id="s-7"), 0),
    "top": (lambda c: queries.sums(c, minutes=10), 10 * (STREAMS + 1) + 1),
    # The same share of this table as a day of thirty.
    "top, long": (lambda c: queries.sums(c, minutes=MINUTES // 30), MINUTES // 30 * (STREAMS + 1) + 1),
}


@pytest.mark.parametrize("case", CASES)
def test_statements_read_only_needed_rows_and_never_scan(full: Database, case: str) -> None:
    query, most = CASES[case]
    with full.writer.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
        explaining = Explaining(cursor)
        answer = query(explaining)
        cursor.execute("SET default_transaction_read_only = off")
    assert answer is not None
    scans = [
        (node["Node Type"], node.get("Relation Name"))
        for plan in explaining.plans
        for node in nodes(plan)
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "stream_metrics_minute"
    ]
    assert scans == []
    assert sum(map(rows_read, explaining.plans)) <= most


def test_the_check_would_notice_a_scan(full: Database) -> None:
    with full.writer.cursor() as cursor:
        explaining = Explaining(cursor)
        explaining.execute("SELECT stream_id, max(chat_messages) FROM stream_metrics_minute GROUP BY stream_id")
    assert any(node["Node Type"] == "Seq Scan" for node in nodes(explaining.plans[0]))
    assert rows_read(explaining.plans[0]) > STREAMS * MINUTES
