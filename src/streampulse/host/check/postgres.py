"""Looks at PostgreSQL: the schema."""

from collections.abc import Iterator
from typing import Any

from streampulse.core.settings import PostgresSettings, load
from streampulse.host.check.host import ANSWER_SECONDS, Finding, Host, fault, fine, look


def query(statement: str) -> list[tuple[Any, ...]]:
    """Return the rows of a statement, as the role that this host's settings name."""
    from streampulse.core import postgres

    return postgres.query(load(PostgresSettings), "streampulse-check", statement, statement_seconds=ANSWER_SECONDS)


@look("postgres.schema", "job", "api")
def schema(_: Host, __: dict[str, str]) -> Iterator[Finding]:
    """Compare the database's migrations with those of this release."""
    from streampulse.host.migrate import sql_directory

    ours = sorted(path.stem for path in sql_directory().glob("*.sql"))
    ((exists,),) = query("SELECT to_regclass('_yoyo_migration') IS NOT NULL")
    theirs = sorted(row[0] for row in query("SELECT migration_id FROM _yoyo_migration")) if exists else []
    missing = [each for each in ours if each not in theirs]
    newer = [each for each in theirs if each not in ours]
    if missing:
        yield fault("SP-POSTGRES-002", "postgres.schema", f"the database lacks {', '.join(missing)}", "inv up")
    elif newer:
        cause = f"the database is of a newer release ({', '.join(newer)})"
        yield fault("SP-POSTGRES-003", "postgres.schema", cause, "git pull; inv up")
    else:
        yield fine("postgres.schema", f"at {ours[-1].split('.')[0].lstrip('0') if ours else 'nothing'}")
