"""The dashboards' SQL on a real PostgreSQL: the numbers are right, and a long range costs no more than a day."""

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from conftest import Database, own_database
from dashboard_queries import boards, queries, sql, wrong_in_postgres
from plans import rows_read
from postgres import READER, PostgresServer

pytestmark = pytest.mark.postgres

NOW = datetime.now(UTC).replace(second=0, microsecond=0)
STREAMS = 30
MINUTES = 10 * 24 * 60
# As in grafana/dashboards/yml.j2: hours that a query reads at most, and streams as lines and in the list.
HOURS, LINES, LISTED = 24, 10, 25


@pytest.fixture(scope="module")
def full(postgres_server: PostgresServer, migrated_template: str) -> Iterator[Database]:
    """Ten days of ordinary streams, and an internal probe beside them."""
    with own_database(postgres_server, migrated_template) as database:
        database.execute(
            "INSERT INTO stream_metrics_minute SELECT %s - m * interval '1 min', 's-' || s, 2, 1, 0.5, 1, 1, s, s"
            " FROM generate_series(0, %s) AS m, generate_series(1, %s) AS s",
            (NOW, MINUTES - 1, STREAMS),
        )
        database.execute(
            "INSERT INTO stream_metrics_minute SELECT %s - m * interval '1 min', '__probe', 9, 9, 9, 9, 9, 999, 999"
            " FROM generate_series(0, %s) AS m",
            (NOW, MINUTES - 1),
        )
        database.execute(
            "INSERT INTO stream_presence SELECT 's-' || s, s, NULL, now() FROM generate_series(1, %s) AS s", (STREAMS,)
        )
        database.execute("INSERT INTO stream_presence VALUES ('__probe', 999, now(), now())")
        database.execute("UPDATE event_clock SET clock = %s", (NOW + timedelta(seconds=30),))
        database.execute("VACUUM ANALYZE")
        yield database


@pytest.fixture
def run(full: Database) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    """Run a statement with Grafana's reading role."""
    with contextlib.closing(full.server.connect(READER, full.name)) as reader, reader.cursor() as cursor:

        def ask(statement: str) -> list[tuple[Any, ...]]:
            cursor.execute(statement)
            return cursor.fetchall()

        yield ask


def statement(panel: int, over: timedelta = timedelta(hours=1), stream: str = "s-7") -> str:
    """Return a panel's statement as Grafana sends it."""
    (query,) = [each for each in queries() if each.dashboard == "streampulse-audience" and each.panel == panel]
    return sql(query.text, stream, NOW + timedelta(seconds=59), over)


def test_every_statement_runs_as_the_reading_role_and_finds_something(
    run: Callable[[str], list[tuple[Any, ...]]],
) -> None:
    def rows(text: str) -> list[str]:
        try:
            return [str(row[0]) for row in run(text)]
        except psycopg2.Error as error:
            raise ValueError(str(error)) from None

    assert wrong_in_postgres(rows) == []


def test_the_figures_are_those_of_ordinary_streams(run: Callable[[str], list[tuple[Any, ...]]]) -> None:
    assert run(statement(1)) == [(sum(range(1, STREAMS + 1)),)]
    assert run(statement(2)) == [(STREAMS,)]
    # From 59 s after the newest window back over an hour: 60 windows begin in it.
    assert run(statement(3)) == [(60 * STREAMS * 2,)]
    assert run(statement(4)) == [(60 * STREAMS * 0.5,)]
    assert run(statement(5)) == [(NOW.timestamp() * 1000,)]
    assert run(statement(6)) == [(f"s-{STREAMS}",)]


def test_the_lines_are_those_of_ordinary_streams(run: Callable[[str], list[tuple[Any, ...]]]) -> None:
    viewers = run(statement(10))
    assert [row[0] for row in viewers] == [NOW - timedelta(minutes=59 - m) for m in range(60)]
    assert {row[1] for row in viewers} == {sum(range(1, STREAMS + 1))}
    assert {row[1:] for row in run(statement(13))} == {(STREAMS, STREAMS)}
    largest = run(statement(20))
    assert {row[1] for row in largest} == {f"s-{number}" for number in range(STREAMS - LINES + 1, STREAMS + 1)}
    assert len(largest) == 60 * LINES
    listed = run(statement(21))
    assert len(listed) == LISTED
    assert listed[0] == ("s-1", 30.0, 60, 120, 1, 1)


def test_one_stream_is_the_one_that_is_chosen(run: Callable[[str], list[tuple[Any, ...]]]) -> None:
    assert {row[1:] for row in run(statement(30, stream="s-7"))} == {(7, 7)}
    assert {row[1:] for row in run(statement(31, stream="s-7"))} == {(2, 1)}
    assert run(statement(30, stream="nobody's")) == []
    assert run(statement(30, stream="__probe")) == [], "a stream of our own is shown"


@pytest.mark.parametrize("panel", sorted({query.panel for query in queries() if query.language == "sql"}))
def test_a_range_of_a_year_reads_a_day(run: Callable[[str], list[tuple[Any, ...]]], panel: int) -> None:
    text = statement(panel, over=timedelta(days=365))
    ((plans,),) = run(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}")
    plan = plans[0] if isinstance(plans, list) else json.loads(plans)[0]
    day = HOURS * 60 * (STREAMS + 1)
    # Once to find the largest streams, and once for their lines.
    assert rows_read(plan["Plan"]) <= 2 * day + STREAMS, text


def test_streams_can_be_chosen_by_their_names(run: Callable[[str], list[tuple[Any, ...]]]) -> None:
    (variable,) = [each for each in boards()["streampulse-audience"]["templating"]["list"] if each["name"] == "stream"]
    names = [row[0] for row in run(variable["query"])]
    assert names == sorted(f"s-{number}" for number in range(1, STREAMS + 1))


def test_a_statement_that_fails_or_finds_nothing_is_reported() -> None:
    def nothing(text: str) -> list[str]:
        if "donations" in text:
            raise ValueError("permission denied")
        return []

    wrong = wrong_in_postgres(nothing)
    assert any("permission denied" in line for line in wrong)
    assert any("no rows" in line for line in wrong)
    assert any("no stream can be chosen" in line for line in wrong)
