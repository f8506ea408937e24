"""The probe's ledger reader on a real PostgreSQL that stops, hangs and recovers."""

import json
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Database, own_database, own_server
from postgres import PostgresServer

from streampulse.host.migrate import migrate
from streampulse.probe import ledger as ledger_module
from streampulse.probe.ledger import Ledger
from streampulse.probe.part import Unreadable

pytestmark = pytest.mark.postgres
QUERY = str(uuid.uuid4())
PATIENCE = 1.0


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "dead-letters.json"


def commit(
    database: Database, offsets: dict[str, int], letters: dict[str, int] | None = None, age: str = "0 s"
) -> None:
    """Add a ledger row as the job does."""
    database.execute(
        "INSERT INTO batch_ledger (query_id, batch_id, topic_id, offsets, dead_letters, committed_at)"
        " VALUES (%s, (SELECT coalesce(max(batch_id), 0) + 1 FROM batch_ledger), 'a', %s, %s, now() - %s::interval)",
        (QUERY, json.dumps(offsets), json.dumps(letters or {}), age),
    )


def empty(database: Database) -> None:
    """Empty the ledger as a wipe does: its sequence restarts."""
    database.execute("TRUNCATE batch_ledger RESTART IDENTITY")


@pytest.fixture(scope="module")
def shared(postgres_server: PostgresServer, migrated_template: str) -> Iterator[Database]:
    with own_database(postgres_server, migrated_template) as database:
        yield database


@pytest.fixture
def database(shared: Database) -> Database:
    """Empty the ledger, which is quicker than a database for each test."""
    empty(shared)
    return shared


@pytest.fixture
def ledger(database: Database, kept: Path) -> Iterator[Ledger]:
    """Return a ledger that uses the read-only role."""
    made = Ledger(database.settings(), PATIENCE, kept)
    yield made
    made.close()


def restarted(database: Database, kept: Path) -> int:
    """Return the dead-letter count of a restarted probe."""
    made = Ledger(database.settings(), PATIENCE, kept)
    try:
        return made.read().dead_letters
    finally:
        made.close()


def test_an_empty_ledger_is_read(ledger: Ledger) -> None:
    reading = ledger.read()
    assert (reading.entry, reading.dead_letters) == (None, 0)


def test_the_newest_entry_is_told(database: Database, ledger: Ledger) -> None:
    commit(database, {"0": 5})
    commit(database, {"0": 9, "3": 2}, age="7 s")
    entry = ledger.read().entry
    assert entry is not None
    assert (entry.offsets, entry.topic_id) == ({0: 9, 3: 2}, "a")
    assert entry.committed_at == pytest.approx(time.time() - 7, abs=3)


def test_dead_letters_are_summed_as_they_are_added(
    database: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_LETTERS", ledger_module._LETTERS.replace("20000", "2"))
    commit(database, {"0": 1}, {"invalid": 3, "late": 4})
    for offset in range(2, 7):
        commit(database, {"0": offset})
    commit(database, {"0": 7}, {"future": 1})
    assert ledger.read().dead_letters == 8
    assert ledger.read().dead_letters == 8
    commit(database, {"0": 8}, {"late": 2})
    assert ledger.read().dead_letters == 10


def test_the_sum_outlives_a_restart_and_the_entries(database: Database, ledger: Ledger, kept: Path) -> None:
    commit(database, {"0": 1}, {"late": 4})
    assert ledger.read().dead_letters == 4
    # Rows written while the probe is down are counted after its restart.
    commit(database, {"0": 2}, {"late": 1})
    assert restarted(database, kept) == 5
    # The job removes old rows.
    database.execute("DELETE FROM batch_ledger WHERE seq < (SELECT max(seq) FROM batch_ledger)")
    assert restarted(database, kept) == 5
    commit(database, {"0": 3}, {"late": 1})
    assert restarted(database, kept) == 6


def test_a_recreated_ledger_is_added(database: Database, ledger: Ledger, kept: Path) -> None:
    for offset in range(3):
        commit(database, {"0": offset}, {"late": 1})
    assert ledger.read().dead_letters == 3
    empty(database)
    assert ledger.read().dead_letters == 3
    commit(database, {"0": 1}, {"late": 5})
    assert ledger.read().dead_letters == 8
    assert restarted(database, kept) == 8


def test_a_ledger_that_was_restored_is_not_counted_twice(database: Database, ledger: Ledger) -> None:
    for offset in range(4):
        commit(database, {"0": offset}, {"late": 1})
    assert ledger.read().dead_letters == 4
    # From a backup of some rows ago; new ones follow.
    database.execute("DELETE FROM batch_ledger WHERE seq > 2")
    assert ledger.read().dead_letters == 4
    database.execute("ALTER TABLE batch_ledger ALTER COLUMN seq RESTART WITH 3")
    commit(database, {"0": 9}, {"late": 10})
    assert ledger.read().dead_letters == 14


@pytest.mark.parametrize("found", ["", "{}", '{"seq": "x", "committed_at": 0, "dead_letters": 0}', "[1]"])
def test_an_unusable_file_restarts_the_count(database: Database, kept: Path, found: str) -> None:
    kept.write_text(found)
    commit(database, {"0": 1}, {"late": 4})
    assert restarted(database, kept) == 4
    assert json.loads(kept.read_text())["dead_letters"] == 4


def test_a_folder_that_cannot_be_written_to_costs_no_reading(database: Database, tmp_path: Path) -> None:
    commit(database, {"0": 1}, {"late": 4})
    assert restarted(database, tmp_path / "missing" / "dead-letters.json") == 4


def test_it_may_only_read(database: Database, ledger: Ledger) -> None:
    commit(database, {"0": 1})
    ledger.read()
    with pytest.raises(Exception, match=r"read-only|permission denied"):
        ledger._query("DELETE FROM batch_ledger", {})


def test_a_missing_table_is_said(postgres_server: PostgresServer) -> None:
    name = postgres_server.create_database()
    made = Ledger(postgres_server.settings(name), PATIENCE, None)
    with pytest.raises(Unreadable, match="counted_up_to"):
        made.read()
    migrate(postgres_server.settings(name))
    made.close()
    postgres_server.drop_database(name)


def test_a_server_that_goes_away_or_hangs_is_said_in_time_and_read_again() -> None:
    with own_server() as (server, template), own_database(server, template) as database:
        made = Ledger(database.settings(), PATIENCE, None)
        commit(database, {"0": 1})
        assert made.read().entry is not None
        server.signal(signal.SIGSTOP)
        for _ in range(2):  # on the open connection, and on a new one
            begun = time.monotonic()
            with pytest.raises(Unreadable, match="no answer"):
                made.read()
            assert time.monotonic() - begun < PATIENCE + 2
        server.signal(signal.SIGCONT)
        assert made.read().entry is not None
        database.writer.close()
        server.stop(signal.SIGQUIT)
        begun = time.monotonic()
        for _ in range(2):
            with pytest.raises(Unreadable):
                made.read()
        assert time.monotonic() - begun < PATIENCE + 2
        server.start()
        assert made.read().entry is not None
        made.close()
