"""Connections to PostgreSQL."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import psycopg2
import psycopg2.extensions

from streampulse.core.settings import PostgresSettings


def arguments(
    settings: PostgresSettings, application: str, *, statement_seconds: float | None = None, read_only: bool = False
) -> dict[str, Any]:
    """Return the keyword arguments of ``psycopg2.connect``.

    :param application: name that ``pg_stat_activity`` shows for the connection.
    :param statement_seconds: limit for each statement, in seconds.
    :param read_only: refuse every statement that writes.
    """
    options = []
    if statement_seconds is not None:
        options.append(f"-c statement_timeout={round(statement_seconds * 1000)}")
    if read_only:
        options.append("-c default_transaction_read_only=on")
    found = settings.connection_arguments(application)
    return {**found, "options": " ".join(options)} if options else found


def connect(
    settings: PostgresSettings, application: str, *, statement_seconds: float | None = None, read_only: bool = False
) -> psycopg2.extensions.connection:
    """Return a connection that commits each statement; parameters as in :func:`arguments`.

    :raises psycopg2.OperationalError: the server does not answer or refuses the role.
    """
    found = arguments(settings, application, statement_seconds=statement_seconds, read_only=read_only)
    connection: psycopg2.extensions.connection = psycopg2.connect(**found)
    connection.autocommit = True
    return connection


def execute(
    connection: psycopg2.extensions.connection,
    statement: str,
    parameters: tuple[Any, ...] | Mapping[str, Any] | None = None,
) -> list[tuple[Any, ...]]:
    """Execute a statement and return its rows; none for a statement that has no result.

    :raises psycopg2.Error: the server refuses the statement, or the connection is lost.
    """
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description is not None else []


def query(
    settings: PostgresSettings, application: str, statement: str, *, statement_seconds: float
) -> list[tuple[Any, ...]]:
    """Return the rows of one statement that only reads, over a connection of its own.

    :raises psycopg2.Error: the server does not answer, or refuses the statement.
    """
    found = connect(settings, application, statement_seconds=statement_seconds, read_only=True)
    with closing(found) as connection:
        return execute(connection, statement)
