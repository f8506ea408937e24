"""A PostgreSQL server for tests: a cluster in a temporary directory, on a free port."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
from ports import free_port
from psycopg2 import sql
from pydantic import SecretStr

from streampulse.core.settings import PostgresSettings

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
    "timezone": "'Asia/Kathmandu'",
}


def find_binaries() -> Path:
    """Return the folder of the newest ``postgres`` and ``initdb`` on this machine."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    if on_path is not None:
        folders.append(Path(on_path).parent)
    usable = [folder for folder in folders if (folder / "postgres").exists()]
    if not usable:
        raise FileNotFoundError("no PostgreSQL server binaries here: run `apt-get install -y postgresql`")
    return max(usable, key=lambda folder: [int(part) for part in folder.parent.name.split(".") if part.isdigit()])


class PostgresServer:
    """One server with a deployment's roles and passwords. Use as a context manager."""

    def __init__(self) -> None:
        self._binaries = find_binaries()
        self._base = Path(tempfile.mkdtemp(prefix="streampulse-test-pg-"))
        # PostgreSQL refuses to run as root.
        self._account = pwd.getpwnam("postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name)
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self.host = "127.0.0.1"
        self.port = free_port()
        self.passwords = {name: secrets.token_urlsafe(12) for name in ("postgres", WRITER, READER)}

    def __enter__(self) -> "PostgresServer":
        try:
            self._initialise()
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
        return (self._base / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        with (self._base / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._base / "data"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self._base,
                start_new_session=True,
                **self._as_account(),
            )
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(psycopg2.OperationalError):
                self.connect("postgres", "postgres").close()
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self.log}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends all sessions and shuts down cleanly, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def signal(self, what: signal.Signals) -> None:
        """Signal the whole server, its sessions too: SIGSTOP makes it hang, SIGCONT resumes it."""
        assert self._process is not None
        pids = [self._process.pid]
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # State and parent follow the name, which ends with the last bracket.
                if int(entry.read_text().rpartition(")")[2].split()[1]) == self._process.pid:
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

    def _initialise(self) -> None:
        os.chown(self._base, self._account.pw_uid, self._account.pw_gid)
        password_file = self._base / "password"
        password_file.write_text(self.passwords["postgres"])
        os.chown(password_file, self._account.pw_uid, self._account.pw_gid)
        # A locale that does not order by code point: statements that rely on that order must ask for it.
        subprocess.run(
            [
                self._binaries / "initdb", "--pgdata", self._base / "data", "--username=postgres",
                f"--pwfile={password_file}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
                "--locale-provider=icu", "--icu-locale=en-US", "--no-sync",
            ],
            check=True,
            capture_output=True,
            cwd=self._base,
            **self._as_account(),
        )  # fmt: skip
        lines = [f"{name} = {value}" for name, value in FAST_SETTINGS.items()]
        lines += [
            f"listen_addresses = '{self.host}'",
            f"port = {self.port}",
            f"unix_socket_directories = '{self._base}'",
        ]
        with (self._base / "data" / "postgresql.conf").open("a") as configuration:
            configuration.write("\n" + "\n".join(lines) + "\n")

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

    def _as_account(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
