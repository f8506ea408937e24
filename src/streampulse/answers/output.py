"""The connection and the text that all answers share."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import psycopg2
import psycopg2.extensions

from streampulse.core.errors import OperatorError, one_line
from streampulse.core.postgres import connect
from streampulse.core.settings import PostgresSettings


@contextmanager
def database(settings: PostgresSettings, purpose: str) -> Iterator[psycopg2.extensions.connection]:
    """Open a connection that commits each statement.

    :param purpose: name of the command, for ``pg_stat_activity``.
    :raises OperatorError: PostgreSQL does not answer, or its schema is older than this release.
    """
    try:
        with closing(connect(settings, f"streampulse-{purpose}")) as connection:
            yield connection
    except (psycopg2.errors.UndefinedTable, psycopg2.errors.UndefinedColumn) as error:
        raise OperatorError(
            f"the schema of {settings.database} is older than this release ({error.diag.message_primary}): inv up"
        ) from None
    except psycopg2.Error as error:
        raise OperatorError(
            f"PostgreSQL at {settings.host}:{settings.port} does not answer ({one_line(error)}): inv logs postgres"
        ) from None


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of text as lines with aligned columns."""
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def moment(at: datetime) -> str:
    """Return an instant as text to the second, UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
