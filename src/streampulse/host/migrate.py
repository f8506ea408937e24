"""``streampulse migrate``: bring the database's schema to the version that this release brings along.

Migrations are the files ``sql/<number>.<name>.sql``, applied in the order of their names and never taken back. Each
is safe to run while the previous release still serves.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import default_migration_table

from streampulse.core.errors import OperatorError
from streampulse.core.settings import PostgresSettings, load

#: Key of the advisory lock that one migrate at a time holds. The server drops it with the connection, so a killed
#: migrate leaves nothing behind.
LOCK_KEY = 0x73_70_6D_69_67  # "spmig"
#: A migration that waits longer than this for a table gives up, so that readers do not queue up behind it.
DDL_LOCK_TIMEOUT_SECONDS = 10


class _Backend(PostgresqlBackend):  # type: ignore[misc]  # yoyo ships no types
    """yoyo's backend without its own lock: ours is held already, and a row would outlive a killed process."""

    @contextmanager
    def lock(self, timeout: float = 10) -> Iterator[None]:  # noqa: ARG002 - yoyo's signature
        yield


def sql_directory() -> Path:
    """Return the folder of the migrations: inside the installed package, or beside ``src`` in a source tree."""
    packaged = Path(__file__).parents[1] / "sql"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "sql"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse migrate``."""
    parser.add_argument(
        "--lock-timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long to wait for another migrate to end (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Migrate, and print ``schema at N (M applied)``.

    :raises OperatorError: the server does not answer, refuses us, or belongs to a newer release.
    """
    version, applied = migrate(load(PostgresSettings), lock_timeout_seconds=args.lock_timeout)
    print(f"schema at {version} ({applied} applied)", flush=True)  # noqa: T201 - the command's result
    return 0


def migrate(settings: PostgresSettings, *, lock_timeout_seconds: float = 60.0) -> tuple[int, int]:
    """Apply what is missing and return (schema version, number of migrations applied now).

    :param lock_timeout_seconds: how long to wait for another migrate to end.
    :raises OperatorError: the server does not answer, refuses us, is not UTF-8, holds a newer release's schema, or a
        table was in use for too long.
    """
    with _lock(settings, lock_timeout_seconds):
        try:
            return _apply(settings)
        except psycopg2.errors.LockNotAvailable:
            raise OperatorError(
                f"a table was in use for more than {DDL_LOCK_TIMEOUT_SECONDS} s and nothing was changed by that "
                "migration: run `streampulse migrate` again when the long query has ended (pg_stat_activity shows it)"
            ) from None
        except psycopg2.errors.InsufficientPrivilege as error:
            raise OperatorError(
                f"role {settings.user} may not change the schema of {settings.database} ({_first_line(error)}): "
                "run `streampulse migrate` with the writing role's credentials"
            ) from None
        except psycopg2.OperationalError as error:
            raise _unreachable(settings, error) from None


def _apply(settings: PostgresSettings) -> tuple[int, int]:
    migrations = read_migrations(str(sql_directory()))
    arguments = settings.connection_arguments("streampulse-migrate")
    # yoyo takes these five by names of its own and hands the rest to psycopg2.connect as they are.
    own = {name: arguments.pop(name) for name in ("user", "password", "host", "port", "dbname")}
    uri = DatabaseURI(
        scheme="postgresql",
        username=own["user"],
        password=own["password"],
        hostname=own["host"],
        port=own["port"],
        database=own["dbname"],
        args={**arguments, "options": f"-c lock_timeout={DDL_LOCK_TIMEOUT_SECONDS}s"},
    )
    with _Backend(uri, default_migration_table) as backend:
        unknown = _unknown_migrations(backend, {migration.hash for migration in migrations})
        if unknown:
            raise OperatorError(
                f"the schema of {settings.database} was made by a newer release (it has {', '.join(unknown)}): "
                "deploy that release or a newer one, schemas are never taken back"
            )
        pending = list(backend.to_apply(migrations))
        for migration in pending:
            migration.load()
            if migration.use_transactions:
                # Statements and mark in one transaction: a kill in between leaves neither.
                with backend.transaction():
                    migration.process_steps(backend, "apply")
                    backend.mark_one(migration)
            else:
                backend.apply_one(migration)
    version = max((int(migration.id.split(".", 1)[0]) for migration in migrations), default=0)
    return version, len(pending)


def _unknown_migrations(backend: Any, known_hashes: set[str]) -> list[str]:
    """Return the ids of the migrations that the database has and this release does not know, oldest first."""
    backend.ensure_internal_schema_updated()
    rows = backend.execute(
        f"SELECT migration_hash, migration_id FROM {backend.migration_table_quoted} ORDER BY migration_id"  # noqa: S608
    ).fetchall()
    return [migration_id for migration_hash, migration_id in rows if migration_hash not in known_hashes]


@contextmanager
def _lock(settings: PostgresSettings, timeout_seconds: float) -> Iterator[None]:
    """Hold the migration lock of the database; wait for it when another migrate has it."""
    try:
        arguments: dict[str, Any] = {**settings.connection_arguments("streampulse-migrate-lock")}
        connection = psycopg2.connect(**arguments)
    except psycopg2.OperationalError as error:
        raise _unreachable(settings, error) from None
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_encoding")
            row = cursor.fetchone()
            if row is None or row[0] != "UTF8":
                raise OperatorError(
                    f"database {settings.database} has the encoding {row[0] if row else 'unknown'} and stream names "
                    "need UTF8: create it anew with ENCODING 'UTF8' TEMPLATE template0"
                )
            cursor.execute("SELECT set_config('lock_timeout', %s, false)", (f"{round(timeout_seconds * 1000)}ms",))
            try:
                cursor.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
            except psycopg2.errors.LockNotAvailable:
                raise OperatorError(
                    f"another migrate has been at work on {settings.database} for {timeout_seconds:g} s: "
                    "wait for it, or end it (pg_stat_activity shows it as streampulse-migrate)"
                ) from None
        yield
    finally:
        connection.close()


def _unreachable(settings: PostgresSettings, error: psycopg2.OperationalError) -> OperatorError:
    """Say in one line why the server could not be used and what to do."""
    cause = _first_line(error)
    if "authentication failed" in cause or "no password supplied" in cause or "pg_hba.conf" in cause:
        fix = "correct STREAMPULSE_POSTGRES_USER and STREAMPULSE_POSTGRES_PASSWORD in /etc/streampulse, or run `inv up`"
    elif "does not exist" in cause:
        fix = "run `inv up`, which creates roles and database"
    else:
        fix = "look at it with `inv status` and `inv logs postgres`"
    return OperatorError(f"PostgreSQL at {settings.host}:{settings.port} cannot be used ({cause}): {fix}")


def _first_line(error: psycopg2.Error) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
