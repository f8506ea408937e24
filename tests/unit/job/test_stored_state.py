"""The durable state: payloads of the format before are read, unknown formats are refused, snapshots stay in proportion.

``payloads/`` holds what the code of commit 349fb85 stored over a seeded log, with that log and the rows of its tables.
"""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from deciding import decide, decoded, expected_tables
from test_engine_against_oracle import Tables

from streampulse.core.errors import OperatorError
from streampulse.job.store.state import SNAPSHOT_EVERY_EVENTS, LedgerRow, StateTables, check_format, snapshot_is_due
from streampulse.oracle import decide as oracle
from streampulse.oracle.tables import MINUTE_US, MinuteRow

PAYLOADS = Path(__file__).parent / "payloads"
Stored = list[tuple[int, int, bytes]]


def stored(seq_and_payload: list[tuple[int, str]]) -> Stored:
    return [(seq, 1, base64.b64decode(payload)) for seq, payload in seq_and_payload]


@pytest.fixture(scope="module")
def before() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((PAYLOADS / "349fb85.json").read_text(encoding="utf-8"))
    return document


def test_the_state_of_349fb85_is_continued_to_the_oracles_numbers(before: dict[str, Any]) -> None:
    lines = (PAYLOADS / "349fb85.log.jsonl").read_text(encoding="utf-8").splitlines()
    records = [
        oracle.Record(partition, offset, stamp_ms, key.encode(), value.encode())
        for partition, offset, stamp_ms, key, value in map(json.loads, lines)
    ]
    ledger = before["ledger"]
    position = LedgerRow(
        {int(number): offset for number, offset in ledger["offsets"].items()},
        {int(number): clock for number, clock in ledger["clocks"].items()},
        ledger["topic_id"],
        ledger["event_clock_us"],
    )
    tables = StateTables(before["viewer_timeout_us"])
    engine = tables.rebuild(position, stored([before["snapshot"]])[0], stored(before["deltas"]))
    held = Tables(
        {(window * MINUTE_US, stream): MinuteRow(*row) for window, stream, *row in before["minutes"]},
        {stream: active for stream, (active, _) in before["active"].items()},
    )
    # The last records that were counted come again: a replayed batch changes nothing.
    for begin in range(before["records_counted"] - 10, len(records), 10):
        pieces = decoded(records[begin : begin + 10], engine.partition_clocks(), before["partitions"])
        held.apply(engine.apply([(piece.rows, piece.next_offset) for piece in pieces])[0])

    decisions, clocks = decide(records, before["partitions"])
    expected = expected_tables(decisions, clocks, before["viewer_timeout_us"])
    assert held.minutes == expected.minutes
    assert held.active == {stream: state.active_viewers for stream, state in expected.states.items()}
    assert held.event_clock == max(clocks.values())


def test_an_unknown_format_is_one_line_that_names_both(before: dict[str, Any]) -> None:
    newer = [(seq, 4, payload) for seq, _, payload in stored(before["deltas"])]
    with pytest.raises(OperatorError) as refused:
        StateTables(before["viewer_timeout_us"]).rebuild(LedgerRow({}, {}), None, newer)
    message = str(refused.value)
    assert "job_state_delta has state of format 4, and this release reads formats 1 to 3: " in message
    assert "\n" not in message
    check_format("batch_ledger", 2)
    with pytest.raises(OperatorError, match="batch_ledger has state of format 0"):
        check_format("batch_ledger", 0)


@pytest.mark.parametrize("snapshot_bytes", [0, 10_000, 1_000_000, 50_000_000])
def test_snapshots_stay_in_proportion_to_what_is_counted(snapshot_bytes: int) -> None:
    # Batches of 5,000 events with 25 bytes each, while the state keeps its size.
    written = counted = snapshots = events = since = last = 0
    for _ in range(4_000):
        events, since, counted = events + 5_000, since + 125_000, counted + 125_000
        if snapshot_is_due(events, since, last):
            assert events >= SNAPSHOT_EVERY_EVENTS
            events, since, last = 0, 0, snapshot_bytes
            written, snapshots = written + snapshot_bytes, snapshots + 1
    assert snapshots >= 10
    # The first snapshot comes before there is a size to go by.
    assert written <= 2 * counted + snapshot_bytes
    # A start reads no more deltas than these.
    assert since <= max(SNAPSHOT_EVERY_EVENTS * 25, snapshot_bytes // 2) + 125_000
