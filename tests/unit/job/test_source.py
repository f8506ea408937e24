"""Where reading starts, for each way in which the log and the ledger can disagree."""

import pytest

from streampulse.core.kafka import Log
from streampulse.job.lost import Difference
from streampulse.job.positions import LastRecord
from streampulse.job.source import Start, decide_start
from streampulse.job.store.state import LedgerRow, Span

TOPIC = Log("id", {0: 0, 1: 10}, {0: 100, 1: 50})
LAST, BEFORE = LastRecord(39, 5, "last"), LastRecord(29, 4, "before")


def start(offsets: dict[int, int], topic_id: str | None, difference: Difference | None = None) -> Start:
    ledger = LedgerRow(offsets, {0: 7}, topic_id, 7, {0: LAST})
    return decide_start(TOPIC, ledger, lambda number: difference if number == 0 else None)


def test_the_start_is_the_ledgers_position_where_it_fits() -> None:
    assert start({0: 40, 1: 50}, "id") == Start({0: 40, 1: 50}, {0: LAST, 1: None}, [])


def test_records_that_were_deleted_before_they_were_read_are_an_unread_span(caplog: pytest.LogCaptureFixture) -> None:
    found = start({0: 40}, "id")
    assert (found.offsets, found.spans) == ({0: 40, 1: 10}, [Span("id", 1, "unread", 0, 10, None, None)])
    assert "partition 1: records 0 to 9 were deleted unread" in caplog.text


def test_a_log_that_differs_is_read_from_the_difference_on(caplog: pytest.LogCaptureFixture) -> None:
    found = start({0: 40, 1: 10}, "id", Difference(30, BEFORE))
    assert found == Start({0: 30, 1: 10}, {0: BEFORE, 1: None}, [Span("id", 0, "lost", 30, 40, 5, 7)])
    assert "partition 0: Kafka's log lost the records 30 to 39 (leader epoch 5); reading from 30" in caplog.text


def test_a_topic_that_was_made_again_is_lost_as_a_whole(caplog: pytest.LogCaptureFixture) -> None:
    found = start({0: 40}, "other", Difference(30, BEFORE))
    assert found == Start({0: 0, 1: 10}, {0: None, 1: None}, [Span("other", 0, "lost", 0, 40, 5, 7)])
    assert "partition 0: Kafka's log was lost and created again; reading from 0" in caplog.text
