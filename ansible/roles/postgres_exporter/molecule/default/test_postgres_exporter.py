"""PostgreSQL's metrics are available only with the password, and the exporter can read no event."""

import re
from collections.abc import Iterator
from contextlib import closing

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import pytest
from asking import ADDRESS, can_read, get, kill, listening, postgres, settings, stopped, until

UNIT = "prometheus-postgres-exporter.service"
ENV = settings("monitoring")
USER, PASSWORD = ENV["STREAMPULSE_MONITORING_USER"], ENV["STREAMPULSE_MONITORING_PASSWORD"]
URL = f"http://{ADDRESS}:9187/metrics"
AT_LEAST = {
    'pg_database_size_bytes{datname="streampulse"}': 1e6,
    r"pg_settings_max_connections\{[^}]*\}": 20,
    r'pg_stat_activity_count\{[^}]*datname="streampulse"[^}]*\}': 0,
    r"pg_stat_activity_max_tx_duration\{[^}]*\}": 0,
    r"pg_locks_count\{[^}]*\}": 0,
    r"pg_stat_database_xact_commit(?:_total)?\{[^}]*\}": 0,
    r'pg_stat_user_tables_n_dead_tup\{[^}]*relname="stream_metrics_minute"[^}]*\}': 0,
    r'pg_stat_user_tables_n_live_tup\{[^}]*relname="stream_metrics_minute"[^}]*\}': 0,
}


def scrape() -> str:
    """Return the text of a scrape."""
    status, text = get(URL, USER, PASSWORD)
    assert status == 200
    return text


def up() -> str:
    """Return the exporter's pg_up."""
    return "".join(re.findall(r"^pg_up (\S+)$", scrape(), re.MULTILINE))


@pytest.fixture(scope="module")
def text() -> str:
    until("PostgreSQL is up", 60, lambda: up() == "1", AssertionError)
    return scrape()


@pytest.mark.parametrize("password", ["", "wrong"])
def test_a_scrape_without_the_password_is_refused(password: str) -> None:
    assert get(URL, USER, password)[0] == 401


def test_it_listens_on_the_private_address_only() -> None:
    assert listening(9187) == {ADDRESS}


@pytest.mark.parametrize("series", AT_LEAST)
def test_a_series_is_there(text: str, series: str) -> None:
    values = [float(value) for value in re.findall(rf"^{series} (\S+)$", text, re.MULTILINE)]
    assert values
    assert max(values) >= AT_LEAST[series]


def test_no_query_of_the_exporters_fails(text: str) -> None:
    assert "pg_exporter_last_scrape_error 1" not in text


@pytest.mark.parametrize("file", ["postgres-exporter.env", "postgres-exporter-web.yml"])
def test_no_other_service_reads_its_files(file: str) -> None:
    assert not can_read("node-exporter", f"/etc/streampulse/{file}")


@pytest.fixture(scope="module")
def connection() -> Iterator[psycopg2.extensions.connection]:
    login = settings("postgres-exporter")
    made = psycopg2.connect(
        host=ADDRESS,
        dbname="streampulse",
        user=login["DATA_SOURCE_USER"],
        password=login["DATA_SOURCE_PASS"],
        connect_timeout=5,
    )
    made.autocommit = True
    with closing(made):
        yield made


@pytest.mark.parametrize(
    "statement", ["SELECT count(*) FROM stream_state", "CREATE TABLE verify (n int)", "SELECT pg_reload_conf()"]
)
def test_the_exporter_may_not(connection: psycopg2.extensions.connection, statement: str) -> None:
    with connection.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute(statement)


def test_it_reports_that_postgresql_is_away_and_back_also_after_a_kill() -> None:
    with stopped(postgres()):
        until("PostgreSQL is away", 60, lambda: up() == "0", AssertionError)
    until("PostgreSQL is back", 60, lambda: up() == "1", AssertionError)
    kill(UNIT)
    until("the exporter is back", 60, lambda: up() == "1", AssertionError)
