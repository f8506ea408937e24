"""The outcome of each record: cases beside the examples of docs/semantics.md, and the five rules word by word."""

import json
import uuid

import pytest
from deciding import decide
from hypothesis import given, settings
from hypothesis import strategies as st

from streampulse.events import partition_of
from streampulse.oracle.decide import PartitionLog, Record

#: 2026-03-01T12:00:00Z in seconds.
NOON = 1_772_366_400
MINUTE = 60
PARTITIONS = 4


def stamp(seconds: float) -> str:
    """Return the `ts` of an instant given in seconds after noon."""
    micros = round(seconds * 1_000_000)
    hour, rest = divmod(12 * 3600 * 1_000_000 + micros, 3600 * 1_000_000)
    minute, rest = divmod(rest, 60 * 1_000_000)
    second, fraction = divmod(rest, 1_000_000)
    return f"2026-03-01T{hour:02d}:{minute:02d}:{second:02d}.{fraction:06d}Z"


def identity(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


class Topic:
    """Records of one partition at consecutive offsets, by default arriving an hour after noon."""

    def __init__(self, stream_id: str = "stream-1") -> None:
        self.stream_id = stream_id
        self.partition = partition_of(stream_id.encode(), PARTITIONS)
        self.records: list[Record] = []

    def add(
        self, seconds: float, name: str | None = None, arrival: float = 3600.0, stream_id: str | None = None
    ) -> None:
        stream = stream_id or self.stream_id
        value = {
            "event_id": identity(name or f"event {len(self.records)}"),
            "ts": stamp(seconds),
            "event_type": "viewer_join",
            "stream_id": stream,
            "user_id": "user-1",
        }
        self.raw(json.dumps(value).encode(), arrival, stream.encode())

    def raw(self, value: bytes | None, arrival: float = 3600.0, key: bytes | None = None) -> None:
        at = round((NOON + arrival) * 1000)
        self.records.append(Record(self.partition, len(self.records), at, key or self.stream_id.encode(), value))

    def outcomes(self) -> list[str]:
        return [decision.outcome for _, decision in decide(self.records, PARTITIONS)[0]]

    def clock(self) -> float | None:
        """Return the partition's clock after all records, in seconds after noon."""
        clock = decide(self.records, PARTITIONS)[1].get(self.partition)
        return None if clock is None else (clock - NOON * 1_000_000) / 1_000_000


def same_partition_as(stream_id: str, prefix: str) -> str:
    """Return a stream id with a prefix whose partition is the same."""
    wanted = partition_of(stream_id.encode(), PARTITIONS)
    return next(
        name
        for name in (f"{prefix}{number}" for number in range(1000))
        if partition_of(name.encode(), PARTITIONS) == wanted
    )


def test_a_record_that_is_no_event_is_invalid_and_moves_no_clock() -> None:
    topic = Topic()
    for value in (None, b"", b"{", b'{"ts": "2026-03-01T23:00:00Z"}'):
        topic.raw(value)
    topic.add(0)
    assert topic.outcomes() == ["invalid"] * 4 + ["accepted"]
    assert topic.clock() == 0


def test_an_excluded_event_gets_the_reason_of_its_entry_and_moves_no_clock() -> None:
    topic = Topic()
    topic.add(30 * MINUTE)
    topic.add(0)
    topic.raw(b"{")
    log = PartitionLog(topic.partition, PARTITIONS)
    decisions = [log.decide(record, "future") for record in topic.records]
    assert [decision.outcome for decision in decisions] == ["future", "future", "invalid"]
    assert log.clock_us is None


def test_the_clock_belongs_to_the_partition_and_not_to_the_stream() -> None:
    topic = Topic()
    other = same_partition_as("stream-1", "other-")
    topic.add(20 * MINUTE)
    topic.add(9 * MINUTE, stream_id=other)
    assert topic.outcomes() == ["accepted", "late"]


def test_internal_streams_are_judged_by_the_clock_but_do_not_move_it() -> None:
    topic = Topic()
    own = same_partition_as("stream-1", "__smoke-")
    topic.add(50 * MINUTE, stream_id=own)
    topic.add(0, stream_id=own)  # no ordinary record yet: no clock, so nothing is late
    topic.add(0, "a")
    topic.add(50 * MINUTE, "x", stream_id=own)
    topic.add(-MINUTE, "b")
    topic.add(11 * MINUTE, "c")
    topic.add(0.5, "y", stream_id=own)
    assert topic.outcomes() == ["accepted"] * 6 + ["late"]
    assert topic.clock() == 11 * MINUTE


def test_internal_streams_have_duplicates_too_also_before_there_is_a_clock() -> None:
    topic = Topic()
    own = same_partition_as("stream-1", "__smoke-")
    topic.add(0, "a", stream_id=own)
    topic.add(50 * MINUTE, "b", stream_id=own)
    topic.add(0, "a", stream_id=own)
    assert topic.outcomes() == ["accepted", "accepted", "duplicate"]
    log = PartitionLog(topic.partition, PARTITIONS)
    for record in topic.records:
        log.decide(record)
    assert log.clock_us is None
    assert log.own_clocks_us == {own: (NOON + 3000) * 1_000_000}


def test_records_out_of_order_are_refused() -> None:
    topic = Topic()
    topic.add(0)
    topic.add(1)
    with pytest.raises(ValueError, match="out of order"):
        decide(reversed(topic.records), PARTITIONS)


def test_missing_records_make_uncertain_until_the_clock_is_ten_minutes_past_them() -> None:
    topic = Topic()
    for seconds in (0.0, 10 * MINUTE, 10 * MINUTE + 0.000001, 5 * MINUTE, -1):
        topic.add(seconds)
    log = PartitionLog(topic.partition, PARTITIONS, missing_until_us=NOON * 1_000_000)
    decisions = [log.decide(record) for record in topic.records]
    assert [decision.outcome for decision in decisions] == ["accepted"] * 4 + ["late"]
    assert [decision.certain for decision in decisions] == [False, False, False, True, True]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-900, 900), st.integers(0, 6), st.integers(-400, 900)), max_size=40))
def test_the_rules_word_by_word(events: list[tuple[int, int, int]]) -> None:
    """Decide by the five rules as written, comparing with all earlier records each time."""
    topic = Topic()
    for seconds, name, arrival in events:
        topic.add(seconds, str(name), arrival=arrival)
    expected: list[str] = []
    for index, (seconds, name, arrival) in enumerate(events):
        if seconds - arrival > 300:
            expected.append("future")
            continue
        earlier = list(zip(events[:index], expected, strict=True))
        clock = max((other[0] for other, outcome in earlier if outcome != "future"), default=None)
        if clock is not None and clock - seconds > 600:
            expected.append("late")
        elif any(
            other[1] == name and outcome == "accepted" and clock is not None and clock - other[0] <= 600
            for other, outcome in earlier
        ):
            expected.append("duplicate")
        else:
            expected.append("accepted")
    assert topic.outcomes() == expected
