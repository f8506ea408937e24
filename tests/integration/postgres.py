"""A PostgreSQL server for tests: a cluster in a temporary directory, on a free port."""

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psycopg2
import psycopg2.extensions
from ports import free_port
from psycopg2 import sql
from pydantic import SecretStr

from streampulse.core.settings import PostgresSettings
from streampulse_ops.bench.race.servers import postgres_server

WRITER = "streampulse_writer"
READER = "streampulse_reader"

FAST_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "dynamic_shared_memory_type": "posix",
    # A zone that no host has, so that a test notices an answer in local time.
    "timezone": "Asia/Kathmandu",
}
# A locale that does not order by code point: statements that rely on that order must ask for it.
LOCALE = ("--locale-provider=icu", "--icu-locale=en-US", "--no-sync")


class PostgresServer:
    """One server with a deployment's roles and passwords. Use as a context manager."""

    def __init__(self) -> None:
        self._base = Path(tempfile.mkdtemp(prefix="streampulse-test-pg-"))
        self._databases = 0
        self.host = "127.0.0.1"
        self.port = free_port()
        self.passwords = {name: secrets.token_urlsafe(12) for name in ("postgres", WRITER, READER)}
        options = {**FAST_SETTINGS, "port": self.port}
        self._server = postgres_server(self._base, self.passwords["postgres"], options, *LOCALE)

    def __enter__(self) -> "PostgresServer":
        try:
            self.start()
            self._make_roles()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._base, ignore_errors=True)

    @property
    def log(self) -> str:
        """The server's log so far."""
        return self._server.log.read_text(errors="replace")

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        self._server.start()
        self._server.wait(lambda: self.connect("postgres", "postgres").close(), psycopg2.OperationalError)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server. SIGQUIT is a crash."""
        self._server.stop(how)

    def signal(self, what: signal.Signals) -> None:
        """Signal the whole server, its sessions too: SIGSTOP makes it hang, SIGCONT resumes it."""
        assert self._server.process is not None
        pids = [own := self._server.process.pid]
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # State and parent follow the name, which ends with the last bracket.
                if int(entry.read_text().rpartition(")")[2].split()[1]) == own:
                    pids.append(int(entry.parent.name))
        for pid in pids:
            os.kill(pid, what)

    def connect(self, user: str, database: str) -> psycopg2.extensions.connection:
        """Return a connection in autocommit mode."""
        connection = psycopg2.connect(
            host=self.host, port=self.port, user=user, password=self.passwords[user], dbname=database, connect_timeout=5
        )
        connection.autocommit = True
        return connection

    def create_database(self, template: str | None = None) -> str:
        """Create a database that the writing role owns and return its name.

        :param template: a database to copy, without connections.
        """
        self._databases += 1
        name = f"test_{self._databases}"
        statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(WRITER), sql.Identifier(template or "template0")
        )
        self._execute([statement])
        if template is None:
            # As in a deployment, before the first migration.
            with contextlib.closing(self.connect(WRITER, name)) as connection, connection.cursor() as cursor:
                cursor.execute(
                    sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {}").format(
                        sql.Identifier(READER)
                    )
                )
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database and end its connections."""
        self._execute([sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))])

    def settings(self, database: str, user: str = WRITER) -> PostgresSettings:
        """Return the settings of streampulse for a database of this server."""
        return PostgresSettings(
            host=self.host,
            port=self.port,
            database=database,
            user=user,
            password=SecretStr(self.passwords[user]),
            sslmode="disable",
        )

    def environment(self, database: str, user: str = WRITER) -> dict[str, str]:
        """Return the same settings as environment variables."""
        return {
            "STREAMPULSE_POSTGRES_HOST": self.host,
            "STREAMPULSE_POSTGRES_PORT": str(self.port),
            "STREAMPULSE_POSTGRES_DATABASE": database,
            "STREAMPULSE_POSTGRES_USER": user,
            "STREAMPULSE_POSTGRES_PASSWORD": self.passwords[user],
            "STREAMPULSE_POSTGRES_SSLMODE": "disable",
        }

    def _make_roles(self) -> None:
        self._execute(
            [
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(name), sql.Literal(self.passwords[name])
                )
                for name in (WRITER, READER)
            ]
            + [
                sql.SQL(
                    "CREATE ROLE streampulse_sessions; ALTER ROLE {0} NOINHERIT; GRANT streampulse_sessions TO {0}"
                ).format(sql.Identifier(READER))
            ]
        )

    def _execute(self, statements: Sequence[sql.Composed]) -> None:
        with contextlib.closing(self.connect("postgres", "postgres")) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
