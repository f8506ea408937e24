"""PostgreSQL's log-ins, and the rights of each role."""

from collections.abc import Iterator
from contextlib import ExitStack, closing

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import pytest
from asking import kill, postgres, run, settings, show, until


def values(name: str) -> dict[str, str]:
    """Return the settings of one of PostgreSQL's environment files, without their common prefix."""
    return {key.removeprefix("STREAMPULSE_POSTGRES_").lower(): value for key, value in settings(name).items()}


WRITER, READER = values("postgres-writer"), values("postgres-reader")


def connect(known: dict[str, str], **other: str) -> psycopg2.extensions.connection:
    """Log in over the network."""
    made = psycopg2.connect(
        host=known["host"], port=known["port"], dbname=known["database"], connect_timeout=5,
        **{"user": known["user"], "password": known["password"], **other},
    )  # fmt: skip
    made.autocommit = True
    return made


def ask(known: dict[str, str], statement: str) -> list[tuple[object, ...]]:
    """Return the rows of a statement."""
    with closing(connect(known)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def table() -> Iterator[None]:
    ask(WRITER, "CREATE TABLE verify_made_by_writer (n int); INSERT INTO verify_made_by_writer VALUES (7)")
    yield
    ask(WRITER, "DROP TABLE verify_made_by_writer")


def test_the_database_is_utf8_and_passwords_are_scram() -> None:
    assert ask(WRITER, "SELECT current_setting('server_encoding'), current_setting('password_encryption')") == [
        ("UTF8", "scram-sha-256")
    ]
    assert ask(WRITER, "SELECT datcollate FROM pg_database WHERE datname = current_database()") == [("C.UTF-8",)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "60000"),
    ],
)
def test_the_session_of_a_client_that_vanished_ends(name: str, value: str) -> None:
    assert ask(WRITER, f"SELECT current_setting('{name}')") == [(value,)]


def test_the_writer_may_only_write() -> None:
    rights = "SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
    assert ask(WRITER, rights) == [(False,)]


@pytest.mark.usefixtures("table")
def test_the_reader_sees_the_writers_rows() -> None:
    assert ask(READER, "SELECT n FROM verify_made_by_writer") == [(7,)]
    ask(READER, "SELECT count(*) FROM stream_state")


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO verify_made_by_writer VALUES (8)",
        "TRUNCATE stream_metrics_minute",
        "CREATE TABLE verify_made_by_reader (n int)",
        "CREATE TEMPORARY TABLE verify_temporary (n int)",
    ],
)
def test_the_reader_may_not(statement: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        ask(READER, statement)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"password": WRITER["password"] + "x"}, "password authentication failed"),
        ({"password": ""}, "no password supplied"),
        ({"user": "postgres"}, "no pg_hba.conf entry"),
        ({"dbname": "postgres"}, "no pg_hba.conf entry"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
def test_a_foreign_login_is_refused(other: dict[str, str], reason: str) -> None:
    known = {**WRITER, "database": other.pop("dbname", WRITER["database"])}
    with pytest.raises(psycopg2.OperationalError, match=reason):
        connect(known, **other)


def test_the_api_cannot_use_up_the_connections_of_the_others() -> None:
    def use_up() -> None:
        while True:
            held.enter_context(closing(connect(READER)))

    with ExitStack() as held:
        with pytest.raises(psycopg2.OperationalError, match="too many connections for role"):
            use_up()
        assert ask(WRITER, "SELECT 1") == [(1,)]


def test_it_stops_in_order_under_the_units_limits() -> None:
    unit = postgres()
    run("systemctl", "reload", unit)
    run("systemctl", "stop", unit)
    ended = (show(unit, "ActiveState"), show(unit, "Result"))
    run("systemctl", "start", unit)
    # If the unit's own stop command fails, systemd ends the server itself and counts that as a failure.
    assert ended == ("inactive", "success")


def test_it_comes_back_after_a_kill() -> None:
    kill(postgres())
    until("the server answers", 90, lambda: ask(WRITER, "SELECT 1"), psycopg2.OperationalError)
