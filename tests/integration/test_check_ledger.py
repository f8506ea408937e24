"""Doctor's look at the ledger, on a real PostgreSQL."""

import contextlib
import json
import uuid

import pytest
from conftest import Database
from postgres import WRITER

from streampulse.core import postgres as core_postgres
from streampulse.host import smoke
from streampulse.host.check import host, job, postgres

pytestmark = pytest.mark.postgres


def test_offsets_that_go_back_are_named_unless_kafka_lost_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "load", lambda _: database.settings(WRITER))
    for batch, offsets in enumerate(({"0": 10, "1": 5}, {"0": 20, "1": 5}, {"0": 12, "1": 9})):
        database.execute(
            "INSERT INTO batch_ledger (query_id, batch_id, topic_id, offsets) VALUES (%s, %s, 't', %s)",
            (str(uuid.uuid4()), batch, json.dumps(offsets)),
        )
    (found,) = job.ledger(host.Host(), {})
    assert found.code == "SP-JOB-006"
    assert found.cause.endswith("goes back from offset 20 to 12 in partition 0")
    database.execute(
        "INSERT INTO lost_spans (topic_id, partition, kind, first_offset, next_offset) VALUES ('t', 0, 'lost', 11, 20)",
        (),
    )
    (found,) = job.ledger(host.Host(), {})
    assert found.ok


def test_a_driver_that_counts_records_of_the_driver_before_again_fails_the_gate(database: Database) -> None:
    drivers = [str(uuid.uuid4()) for _ in range(2)]

    def batch(driver: str, number: int, offset: int, accepted: int, letters: int) -> None:
        database.execute(
            "INSERT INTO batch_ledger (query_id, batch_id, topic_id, offsets, accepted, dead_letters) "
            "VALUES (%s, %s, 't', %s, %s, %s)",
            (driver, number, json.dumps({"0": offset, "1": 7}), accepted, json.dumps({"late": letters})),
        )

    with contextlib.closing(core_postgres.connect(database.settings(WRITER), "test")) as connection:
        batch(drivers[0], 0, 100, 107, 0)
        smoke.check_position(connection)
        batch(drivers[1], 0, 120, 15, 5)
        batch(drivers[1], 1, 130, 10, 0)
        smoke.check_position(connection)
        database.execute("UPDATE batch_ledger SET accepted = 16 WHERE offsets->>'0' = '120'", ())
        with pytest.raises(smoke.NotPassed, match="counted 21 records in 20 new offsets"):
            smoke.check_position(connection)
