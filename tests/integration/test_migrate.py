"""Migrations on a real server: repeated, concurrent, interrupted, refused."""

import base64
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psycopg2
import psycopg2.errors
import pytest
from conftest import Database
from postgres import READER, WRITER, PostgresServer
from psycopg2 import sql

from streampulse.core.errors import OperatorError
from streampulse.host import cli
from streampulse.host import migrate as module
from streampulse.host.migrate import migrate, sql_directory
from streampulse.job.store.state import LedgerRow, StateTables

pytestmark = pytest.mark.postgres

FILES = sorted(sql_directory().glob("*.sql"))
NEWEST = int(FILES[-1].name.split(".")[0])
PAYLOADS = Path(__file__).parents[1] / "unit/job/payloads/349fb85.json"


Command = Callable[..., SimpleNamespace]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs `streampulse migrate` in this process on a database of a server."""

    def run(server: PostgresServer, database: str, **changes: str) -> SimpleNamespace:
        for name, value in {**server.environment(database), **changes}.items():
            monkeypatch.setenv(name, value)
        code = cli.main(["migrate"])
        said = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=said.out, stderr=said.err)

    return run


def test_command_says_version_and_number_and_does_nothing_the_second_time(
    postgres_server: PostgresServer, command: Command
) -> None:
    name = postgres_server.create_database()
    first = command(postgres_server, name)
    assert (first.returncode, first.stdout) == (0, f"schema at {NEWEST} ({len(FILES)} applied)\n"), first.stderr
    second = command(postgres_server, name)
    assert (second.returncode, second.stdout) == (0, f"schema at {NEWEST} (0 applied)\n"), second.stderr


def test_many_at_once_apply_each_migration_once(postgres_server: PostgresServer) -> None:
    name = postgres_server.create_database()
    environment = {**os.environ, **postgres_server.environment(name)}
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "streampulse.host.cli", "migrate"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    answers = [racer.communicate(timeout=60) for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4, answers
    said = sorted(out for out, _ in answers)
    assert said == [f"schema at {NEWEST} (0 applied)\n"] * 3 + [f"schema at {NEWEST} ({len(FILES)} applied)\n"]


def test_waits_for_the_lock_and_gives_up_in_one_line(postgres_server: PostgresServer) -> None:
    name = postgres_server.create_database()
    with contextlib.closing(postgres_server.connect(WRITER, name)) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (module.LOCK_KEY,))
        with pytest.raises(OperatorError, match="another migrate has been at work"):
            migrate(postgres_server.settings(name), lock_timeout_seconds=0.2)
        cursor.execute("SELECT to_regclass('stream_metrics_minute') IS NULL")
        assert cursor.fetchone() == (True,)
    assert migrate(postgres_server.settings(name)) == (NEWEST, len(FILES))


def test_every_migration_may_run_again(database: Database) -> None:
    """A migrate that was killed between its statements and its mark is simply run again."""
    database.execute("DELETE FROM _yoyo_migration")
    database.execute("INSERT INTO stream_metrics_minute VALUES ('2026-01-01T00:00Z', 's', 1, 0, 0, 0, 0, 1, 1)")
    assert migrate(database.settings(WRITER)) == (NEWEST, len(FILES))
    assert database.query("SELECT count(*) FROM stream_metrics_minute") == [(1,)]


def test_failing_migration_leaves_nothing_of_itself(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in FILES:
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "0998.good.sql").write_text("CREATE TABLE good (x int)")
    (tmp_path / "0999.bad.sql").write_text("CREATE TABLE half_done (x int);\nSELECT no_such_column;")
    monkeypatch.setattr(module, "sql_directory", lambda: tmp_path)
    name = postgres_server.create_database()
    with pytest.raises(psycopg2.errors.UndefinedColumn):
        migrate(postgres_server.settings(name))
    with contextlib.closing(postgres_server.connect(WRITER, name)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('good') IS NOT NULL, to_regclass('half_done') IS NULL")
        assert cursor.fetchone() == (True, True)
    (tmp_path / "0999.bad.sql").write_text("CREATE TABLE half_done (x int)")
    assert migrate(postgres_server.settings(name)) == (999, 1)


def test_the_state_in_a_database_of_349fb85_is_loaded_after_its_migration(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = json.loads(PAYLOADS.read_text(encoding="utf-8"))
    name = postgres_server.create_database()
    with monkeypatch.context() as before:
        for file in FILES[:3]:
            (tmp_path / file.name).write_text(file.read_text())
        before.setattr(module, "sql_directory", lambda: tmp_path)
        assert migrate(postgres_server.settings(name)) == (3, 3)
    ledger = stored["ledger"]
    with contextlib.closing(postgres_server.connect(WRITER, name)) as connection, connection.cursor() as cursor:
        for table, rows in (("job_state_snapshot", [stored["snapshot"]]), ("job_state_delta", stored["deltas"])):
            cursor.executemany(
                f"INSERT INTO {table} VALUES (%s, %s)",  # noqa: S608 - one of two constants
                [(seq, base64.b64decode(payload)) for seq, payload in rows],
            )
        cursor.execute(
            "INSERT INTO batch_ledger (query_id, batch_id, topic_id, offsets, clocks, event_clock)"
            " VALUES (gen_random_uuid(), 7, %s, %s, %s, to_timestamp(%s / 1e6))",
            (ledger["topic_id"], json.dumps(ledger["offsets"]), json.dumps(ledger["clocks"]), ledger["event_clock_us"]),
        )
    assert migrate(postgres_server.settings(name)) == (NEWEST, len(FILES) - 3)
    with contextlib.closing(postgres_server.connect(WRITER, name)) as connection, connection.cursor() as cursor:
        engine, newest = StateTables(stored["viewer_timeout_us"]).load(cursor)
    offsets, clocks = ({int(number): value for number, value in ledger[each].items()} for each in ("offsets", "clocks"))
    assert newest == LedgerRow(
        offsets, clocks, ledger["topic_id"], ledger["event_clock_us"], {}, newest.committed_at_ms, seq=1
    )
    assert (engine.next_offsets(), engine.partition_clocks()) == (offsets, clocks)
    assert engine.event_clock_us == ledger["event_clock_us"]
    assert engine.size()["viewers"] > 0


def test_a_newer_releases_schema_is_kept_and_another_projects_refused(database: Database, command: Command) -> None:
    enter = "INSERT INTO _yoyo_migration VALUES ('%s', '%s', now() AT TIME ZONE 'UTC')"
    database.execute(enter % ("one", "7777.from-the-future"))
    answer = command(database.server, database.name)
    assert (answer.returncode, answer.stdout) == (0, "schema at 7777 (0 applied)\n")
    database.execute(enter % ("two", "0001.of-somebody-else"))
    answer = command(database.server, database.name)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.count("\n") == 1
    assert "0001.of-somebody-else" in answer.stderr


def test_busy_table_ends_in_one_line(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DDL_LOCK_TIMEOUT_SECONDS", 0.2)
    database.execute("DELETE FROM _yoyo_migration")
    with contextlib.closing(database.server.connect(WRITER, database.name)) as other, other.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE job_state_delta IN ACCESS SHARE MODE")
        with pytest.raises(OperatorError, match="a table was in use"):
            migrate(database.settings(WRITER))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"STREAMPULSE_POSTGRES_PASSWORD": "wrong"}, "password authentication failed"),
        ({"STREAMPULSE_POSTGRES_USER": "nobody"}, "authentication failed"),
        ({"STREAMPULSE_POSTGRES_DATABASE": "nowhere"}, "does not exist"),
        ({"STREAMPULSE_POSTGRES_PORT": "1"}, "onnection refused"),
    ],
)
def test_refusals_are_one_line_with_a_fix(
    database: Database, command: Command, changes: dict[str, str], says: str
) -> None:
    answer = command(database.server, database.name, **changes)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert says in answer.stderr
    assert "`inv" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert database.server.passwords[WRITER] not in answer.stderr


def test_reader_may_not_migrate(postgres_server: PostgresServer, command: Command) -> None:
    name = postgres_server.create_database()
    answer = command(
        postgres_server,
        name,
        STREAMPULSE_POSTGRES_USER=READER,
        STREAMPULSE_POSTGRES_PASSWORD=postgres_server.passwords[READER],
    )
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert "writing role" in answer.stderr


def test_reader_reads_everything_and_writes_nothing(database: Database) -> None:
    with contextlib.closing(database.server.connect(READER, database.name)) as reader, reader.cursor() as cursor:
        for relation in ("stream_metrics_minute", "stream_state", "stream_presence", "event_clock", "batch_ledger"):
            cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(relation)))
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("DELETE FROM stream_metrics_minute")


def test_streams_are_ordered_by_code_point_whatever_the_locale(database: Database) -> None:
    names = ["a", "B", "_", "\u00e9", "Z", "\U0001f600", "\uff5e", "-", "a b", "ab"]
    database.execute("INSERT INTO stream_presence VALUES (%s, 0, NULL, now())", *[(name,) for name in names])
    rows = database.query("SELECT stream_id FROM stream_state ORDER BY stream_id")
    assert [row[0] for row in rows] == sorted(names)
    # The same names under the database's own locale, to show that the case above can fail.
    other = database.query('SELECT stream_id FROM stream_state ORDER BY stream_id COLLATE "en-x-icu"')
    assert other != rows


def test_state_view_reads_the_newer_clock(database: Database) -> None:
    database.execute("UPDATE event_clock SET clock = '2026-01-01T12:00Z'")
    database.execute(
        "INSERT INTO stream_presence VALUES (%s, 1, %s, '2026-01-01T11:00Z')",
        ("plain", None),
        ("__newer", "2026-01-01T12:30Z"),
        ("__older", "2026-01-01T11:30Z"),
    )
    rows = database.query(
        "SELECT stream_id, to_char(updated_at AT TIME ZONE 'UTC', 'HH24:MI') FROM stream_state ORDER BY stream_id"
    )
    assert rows == [("__newer", "12:30"), ("__older", "12:00"), ("plain", "12:00")]
