"""Fixtures with a real PostgreSQL server. If its binaries are missing, the tests fail and name the command."""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg2.extensions
import pytest
from broker import Broker
from pipeline import Pipeline
from postgres import READER, WRITER, PostgresServer

from streampulse.core.settings import KafkaSettings, PostgresSettings
from streampulse.host.migrate import migrate


@dataclass(frozen=True)
class Database:
    """A migrated database for one test, with a connection of the writing role in autocommit mode."""

    server: PostgresServer
    name: str
    writer: psycopg2.extensions.connection

    def settings(self, user: str = READER) -> PostgresSettings:
        return self.server.settings(self.name, user)

    def execute(self, statement: str, *rows: tuple[object, ...]) -> None:
        """Run a statement as the writing role, once for each row of parameters, or once without."""
        with self.writer.cursor() as cursor:
            for row in rows or (None,):
                cursor.execute(statement, row)

    def fill(self, streams: int, minutes: int, columns: str, name: str = "s-") -> None:
        """Write rows for streams and the minutes up to 2026-05-01T12:00Z, and the streams' viewers.

        :param columns: SQL of the numbers, of a stream's number ``s`` and the minutes ``m`` before the newest.
        """
        self.execute(
            f"INSERT INTO stream_metrics_minute SELECT timestamptz '2026-05-01T12:00Z' - m * interval '1 min',"  # noqa: S608
            f" '{name}' || s, {columns} FROM generate_series(0, {minutes}) AS m, generate_series(1, {streams}) AS s"
        )
        self.execute(
            "INSERT INTO stream_presence"
            " SELECT DISTINCT stream_id, 1, NULL::timestamptz, now() FROM stream_metrics_minute"
        )

    def query(self, statement: str, row: tuple[object, ...] | None = None) -> list[tuple[object, ...]]:
        with self.writer.cursor() as cursor:
            cursor.execute(statement, row)
            return cursor.fetchall()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> str:
    """Migrate an empty database once and return its name: a copy is quicker than a migration for each test."""
    name = postgres_server.create_database()
    migrate(postgres_server.settings(name))
    return name


@contextlib.contextmanager
def own_database(server: PostgresServer, template: str) -> Iterator[Database]:
    """Copy a database and remove the copy at the end."""
    name = server.create_database(template=template)
    try:
        with contextlib.closing(server.connect(WRITER, name)) as writer:
            yield Database(server, name, writer)
    finally:
        server.drop_database(name)


@contextlib.contextmanager
def own_server() -> Iterator[tuple[PostgresServer, str]]:
    """Start a server that a test may stop, with a migrated database."""
    with PostgresServer() as server:
        name = server.create_database()
        migrate(server.settings(name))
        yield server, name


@pytest.fixture
def database(postgres_server: PostgresServer, migrated_template: str) -> Iterator[Database]:
    with own_database(postgres_server, migrated_template) as database:
        yield database


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    with Broker() as server:
        yield server


@pytest.fixture
def kafka(broker: Broker) -> KafkaSettings:
    """Make topics of one partition for one test."""
    return broker.topics(f"events-{uuid.uuid4()}")


@pytest.fixture
def pipeline(kafka: KafkaSettings, database: Database) -> Iterator[Pipeline]:
    made = Pipeline(kafka, database.settings(WRITER))
    yield made
    made.stop()
