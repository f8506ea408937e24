"""The runbooks' queries on a real PostgreSQL with streampulse's tables."""

import json
import re
import time
import uuid
from pathlib import Path

import psycopg2
import psycopg2.extensions
import pytest
from conftest import Database
from postgres import WRITER

from streampulse_ops.runbooks import page as runbooks
from streampulse_ops.runbooks.page import Runbook, Step

pytestmark = pytest.mark.postgres
BOOKS = runbooks.load(Path(__file__).parents[2])
QUERIES = [
    (book, step, statement)
    for book in BOOKS.values()
    for step in book.steps
    for statement in re.findall(r'\bpsql\b[^"]*-[A-Za-z]*c "([^"]*)"', step.script)
]


def case(value: object) -> str:
    return value.name if isinstance(value, Runbook) else str(value.line) if isinstance(value, Step) else ""


def ask(database: Database, statement: str) -> list[tuple[object, ...]]:
    """Run a statement as the server's owner, as `runuser -u postgres -- psql` does."""
    connection = database.server.connect("postgres", database.name)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def query(name: str, word: str) -> str:
    (found,) = [statement for book, _, statement in QUERIES if book.name == name and word in statement]
    return str(found)


def test_every_use_of_psql_is_tried() -> None:
    uses = sum(step.script.count("psql ") for book in BOOKS.values() for step in book.steps)
    assert len(QUERIES) == uses > 5


@pytest.mark.parametrize(("book", "step", "statement"), QUERIES, ids=case)
def test_a_query_runs_on_the_schema(database: Database, book: Runbook, step: Step, statement: str) -> None:
    del book, step
    ask(database, statement)


def test_dead_letters_are_counted_by_hour_and_reason(database: Database) -> None:
    for batch, letters in enumerate(({"invalid": 3, "late": 1}, {"invalid": 4}, {})):
        database.execute(
            "INSERT INTO batch_ledger (query_id, batch_id, dead_letters) VALUES (%s, %s, %s)",
            (str(uuid.uuid4()), batch, json.dumps(letters)),
        )
    found = ask(database, query("dead-letters", "batch_ledger"))
    assert [(reason, int(str(letters))) for _, reason, letters in found] == [("invalid", 7), ("late", 1)]


def forgotten(database: Database) -> psycopg2.extensions.connection:
    """Return a connection with an open transaction."""
    connection = database.server.connect(WRITER, database.name)
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLE batch_ledger IN SHARE MODE")
    return connection


def test_a_forgotten_transaction_is_seen_and_ended_when_it_is_old_enough(database: Database) -> None:
    connection = forgotten(database)
    seen = ask(database, query("postgres-queries-slow", "ORDER BY xact_start"))
    assert [row[3] for row in seen if row[1] == WRITER] == ["idle in transaction"]
    ending = query("postgres-queries-slow", "pg_terminate_backend")
    assert ask(database, ending) == [], "it has only begun"
    time.sleep(1.1)
    assert len(ask(database, ending.replace("10 minutes", "1 second"))) == 1
    with pytest.raises(psycopg2.Error), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection.close()


def test_idle_connections_of_streampulse_are_left_alone(database: Database) -> None:
    ours = database.settings(WRITER).connection_arguments("streampulse-job")
    theirs = database.settings(WRITER).connection_arguments("report")
    connections = [psycopg2.connect(**arguments) for arguments in (ours, theirs)]
    for connection in connections:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    time.sleep(1.1)
    ending = query("postgres-connections-high", "pg_terminate_backend").replace("1 hour", "1 second")
    ask(database, ending.replace("WHERE ", f"WHERE datname = '{database.name}' AND "))
    with connections[0].cursor() as cursor:
        cursor.execute("SELECT 1")
    with pytest.raises(psycopg2.Error), connections[1].cursor() as cursor:
        cursor.execute("SELECT 1")
    for connection in connections:
        connection.close()
