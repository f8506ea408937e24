"""Doctor's look at the ledger, on a real PostgreSQL."""

from __future__ import annotations

import json
import uuid

import pytest
from conftest import Database
from postgres import WRITER

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
