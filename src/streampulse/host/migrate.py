"""``streampulse migrate``: bring the database's schema to the version of this release.

Migrations are the files ``sql/<number>.<name>.sql``, applied in the order of their names and never rolled back. Each is
safe to run while the previous release still serves, and safe to run twice: if migrate is killed between a migration's
statements and its mark, the next run applies the statements again.
"""

import argparse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlencode

import psycopg2
import psycopg2.errors
import psycopg2.extensions
from yoyo import get_backend, read_migrations

from streampulse.core import postgres
from streampulse.core.errors import OperatorError, one_line
from streampulse.core.settings import PostgresSettings, load

#: Key of the advisory lock that makes migrate exclusive. The server releases it with the connection, so a killed
#: migrate leaves no lock behind.
LOCK_KEY = 0x73_70_6D_69_67  # "spmig"
#: Lock time-out of a migration for a table, so that readers do not queue up behind it.
DDL_LOCK_TIMEOUT_SECONDS = 10


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

    :raises OperatorError: as :func:`migrate`.
    """
    version, applied = migrate(load(PostgresSettings), lock_timeout_seconds=args.lock_timeout)
    print(f"schema at {version} ({applied} applied)", flush=True)  # noqa: T201 - the command's result
    return 0


def migrate(settings: PostgresSettings, *, lock_timeout_seconds: float = 60.0) -> tuple[int, int]:
    """Apply the missing migrations and return (schema version, number of migrations applied now).

    :param lock_timeout_seconds: how long to wait for another migrate.
    :raises OperatorError: the server does not answer, refuses the role, is not UTF-8, has other migrations, or a table
        was in use for too long.
    """
    try:
        with _lock(settings, lock_timeout_seconds) as connection:
            return _apply(settings, connection)
    except psycopg2.errors.LockNotAvailable:
        raise OperatorError(
            f"a table was in use for more than {DDL_LOCK_TIMEOUT_SECONDS} s and nothing was changed by that "
            "migration: run `streampulse migrate` again when the long query has ended (pg_stat_activity shows it)"
        ) from None
    except psycopg2.errors.InsufficientPrivilege as error:
        raise _forbidden(settings, _first_line(error)) from None
    except psycopg2.OperationalError as error:
        raise _unreachable(settings, error) from None


def _apply(settings: PostgresSettings, connection: psycopg2.extensions.connection) -> tuple[int, int]:
    ((may_create,),) = postgres.execute(connection, "SELECT has_schema_privilege(current_schema(), 'CREATE')")
    if not may_create:
        # yoyo would hide that it cannot create its tables.
        raise _forbidden(settings, "it may not create tables")
    migrations = read_migrations(str(sql_directory()))
    options = f"-c lock_timeout={DDL_LOCK_TIMEOUT_SECONDS}s"
    arguments = {**settings.connection_arguments("streampulse-migrate"), "options": options}
    # yoyo passes the address's parameters to psycopg2.connect unchanged.
    with get_backend(f"postgresql:///?{urlencode(arguments)}") as backend:
        # A killed migrate leaves a row in yoyo's own lock table. Remove it: no other migrate can hold it, see _lock.
        backend.break_lock()
        pending = backend.to_apply(migrations)
        rows = postgres.execute(connection, "SELECT migration_hash, migration_id FROM _yoyo_migration ORDER BY 2")
        known = {migration.hash for migration in migrations}
        newest = max(migration.id for migration in migrations)
        # Those of a newer release serve this one too: a rollback leaves them.
        newer = [migration_id for migration_hash, migration_id in rows if migration_hash not in known]
        foreign = [migration_id for migration_id in newer if migration_id < newest]
        if foreign:
            raise OperatorError(
                f"the schema of {settings.database} has migrations that are not of this project's releases "
                f"({', '.join(foreign)}): give streampulse a database of its own (streampulse_database)"
            )
        backend.apply_migrations(pending)
    return int(max(newer, default=newest).split(".", 1)[0]), len(pending)


@contextmanager
def _lock(settings: PostgresSettings, timeout_seconds: float) -> Iterator[psycopg2.extensions.connection]:
    """Hold the migration lock of the database; wait while another migrate holds it."""
    with closing(postgres.connect(settings, "streampulse-migrate-lock")) as connection:
        ((encoding,),) = postgres.execute(connection, "SHOW server_encoding")
        if encoding != "UTF8":
            raise OperatorError(
                f"database {settings.database} has the encoding {encoding} and stream names "
                "need UTF8: create it again with ENCODING 'UTF8' TEMPLATE template0"
            )
        postgres.execute(
            connection, "SELECT set_config('lock_timeout', %s, false)", (f"{round(timeout_seconds * 1000)}ms",)
        )
        try:
            postgres.execute(connection, "SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        except psycopg2.errors.LockNotAvailable:
            raise OperatorError(
                f"another migrate has been at work on {settings.database} for {timeout_seconds:g} s: "
                "wait for it, or end it (pg_stat_activity shows it as streampulse-migrate)"
            ) from None
        yield connection


def _forbidden(settings: PostgresSettings, cause: str) -> OperatorError:
    return OperatorError(
        f"role {settings.user} may not change the schema of {settings.database} ({cause}): "
        "run `streampulse migrate` with the writing role's credentials"
    )


def _unreachable(settings: PostgresSettings, error: psycopg2.OperationalError) -> OperatorError:
    """Return the error that names the cause and the command to run."""
    cause = _first_line(error)
    if "authentication failed" in cause or "no password supplied" in cause or "pg_hba.conf" in cause:
        fix = "correct STREAMPULSE_POSTGRES_USER and STREAMPULSE_POSTGRES_PASSWORD in /etc/streampulse, or run `inv up`"
    elif "does not exist" in cause:
        fix = "run `inv up`, which creates roles and database"
    else:
        fix = "look at it with `inv status` and `inv logs postgres`"
    return OperatorError(f"PostgreSQL at {settings.host}:{settings.port} cannot be used ({cause}): {fix}")


def _first_line(error: psycopg2.Error) -> str:
    return one_line(error).partition("LINE 1:")[0].strip()
