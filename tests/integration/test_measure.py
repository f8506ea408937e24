"""The benchmark's measurements in PostgreSQL: visible commits, and growth over simulated days."""

import argparse
import json
import time
import uuid

import pytest
from conftest import Database
from postgres import WRITER

from streampulse.core.errors import OperatorError
from streampulse.core.settings import CountingSettings
from streampulse.host.measure import growth
from streampulse.host.measure.ledger import LedgerWatch

pytestmark = pytest.mark.postgres
QUERY = str(uuid.uuid4())


def commit(database: Database, batch: int, offsets: dict[str, int], hold_seconds: float = 0.0) -> tuple[float, float]:
    """Add a ledger row as the job does; return when its commit began and when it ended."""
    connection = database.server.connect(WRITER, database.name)
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO batch_ledger (query_id, batch_id, offsets) VALUES (%s, %s, %s)",
            (QUERY, batch, json.dumps(offsets)),
        )
    time.sleep(hold_seconds)
    begun = time.time()
    connection.commit()
    ended = time.time()
    connection.close()
    return begun, ended


def seen(watch: LedgerWatch, count: int) -> None:
    watch.wait(lambda now: len(now.commits) >= count, 10, "the rows are seen")


def test_a_commit_is_seen_when_it_is_visible_and_not_before(database: Database) -> None:
    commit(database, 0, {"0": 1})
    with LedgerWatch(database.settings(WRITER)) as watch:
        assert watch.reached() == {}
        # The row is inserted, and its committed_at taken, half a second before it is visible.
        begun, _ = commit(database, 1, {"0": 5, "3": 2}, hold_seconds=0.5)
        seen(watch, 1)
        commit(database, 2, {"0": 9, "3": 2})
        seen(watch, 2)
    assert [dict(row.offsets) for row in watch.commits] == [{0: 5, 3: 2}, {0: 9, 3: 2}]
    assert watch.commits[0].at >= begun
    assert watch.commits[0].at < watch.commits[1].at


def test_the_watch_outlives_its_connection(database: Database) -> None:
    with LedgerWatch(database.settings(WRITER)) as watch:
        commit(database, 1, {"0": 5})
        seen(watch, 1)
        with database.server.connect("postgres", "postgres") as other, other.cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'streampulse-measure'"
            )
            assert cursor.fetchone() == (1,)
        commit(database, 2, {"0": 6})
        seen(watch, 2)
    assert watch.reached() == {0: 6}


def test_a_condition_that_is_not_met_is_named(database: Database) -> None:
    with (
        LedgerWatch(database.settings(WRITER)) as watch,
        pytest.raises(OperatorError, match=r"not within 0\.05 s: a miracle"),
    ):
        watch.wait(lambda now: len(now.commits) > 0, 0.05, "a miracle")


def test_simulated_days_are_counted_and_forgotten(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two days with a history of one: the second mark has no more rows than a day and the unpruned rest."""
    settings = database.settings(WRITER)
    monkeypatch.setattr(
        growth, "load", lambda kind: CountingSettings(history_days=1) if kind is CountingSettings else settings
    )
    marks = growth.measure(argparse.Namespace(days=[1, 2], per_minute=1))
    assert [mark["days"] for mark in marks] == [1, 2]
    for mark in marks:
        assert 0 < mark["rows"] <= 50 * (24 * 60 + 120)
        assert mark["batch_median_cpu_seconds"] > 0
        assert 0 < mark["state_payload_bytes"] <= sum(mark["table_bytes"].values())
        assert mark["table_bytes"]["batch_ledger"] > 0
        assert 0 < mark["state_entries"]["streams"] <= 50
    assert marks[1]["rows"] < 1.2 * marks[0]["rows"]
    # The simulation's schema is gone, and the job's own tables are unchanged.
    assert database.query("SELECT count(*) FROM batch_ledger") == [(0,)]
    assert database.query("SELECT to_regnamespace('streampulse_growth')") == [(None,)]
