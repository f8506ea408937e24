"""``streampulse release``: mark a release as good, after every gate of its deploy and the smoke test."""

import argparse
from contextlib import closing

import psycopg2

from streampulse.core import postgres
from streampulse.core.errors import OperatorError, one_line
from streampulse.core.settings import PostgresSettings, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse release``."""
    parser.add_argument("name", help="the release's name")


def run(args: argparse.Namespace) -> int:
    """Mark the release; return 0.

    :raises OperatorError: PostgreSQL does not answer, or has no such table.
    """
    try:
        with closing(postgres.connect(load(PostgresSettings), "streampulse-release")) as connection:
            postgres.execute(
                connection,
                "INSERT INTO releases (name) VALUES (%s) ON CONFLICT (name) DO UPDATE SET marked_at = now()",
                (args.name,),
            )
    except psycopg2.Error as error:
        raise OperatorError(f"PostgreSQL does not mark the release ({one_line(error)}): inv logs postgres") from None
    print(f"{args.name} is marked as good")  # noqa: T201 - the command's result
    return 0
