"""Which offsets a batch reads, and the reading of them from the broker that librdkafka brings along for tests.

The real broker is that of the tests with machines.
"""

import socket
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaException, Producer

from streampulse.job.ends import Ends, LogLost
from streampulse.job.positions import Position
from streampulse.job.ranges import BATCH_BYTES, Range, bounded_ends, ranges
from streampulse.job.records import read_slice
from streampulse.job.rows import LETTER_BYTES, Slice

TOPIC = "events"
VALUES = [b"garbage %d" % number for number in range(6)]


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """Yield the address of a broker with six records in partition 0."""
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "replaced", "log_level": 2})
    for value in VALUES:
        producer.produce(TOPIC, key=b"k", value=value, partition=0)
    assert producer.flush(30) == 0
    (found,) = producer.list_topics(timeout=10).brokers.values()
    yield f"{found.host}:{found.port}"
    # The broker is there as long as its client.
    producer.purge()


@pytest.mark.parametrize(
    ("first", "ends", "limit", "expected"),
    [
        pytest.param({0: 5, 1: 0}, {0: 9, 1: 0}, 4, {0: 9, 1: 0}, id="all that waits"),
        pytest.param({0: 0, 1: 10}, {0: 300, 1: 110}, 40, {0: 30, 1: 20}, id="shares of what waits"),
        pytest.param({0: 0, 1: 0, 2: 7}, {0: 1_000_000, 1: 1, 2: 7}, 10, {0: 9, 1: 1, 2: 7}, id="one at least"),
        pytest.param({0: 0}, {0: 1_000_000}, None, {0: 1_000_000}, id="no limit"),
    ],
)
def test_where_a_batch_ends(
    first: dict[int, int], ends: dict[int, int], limit: int | None, expected: dict[int, int]
) -> None:
    assert bounded_ends(first, ends, limit) == expected


def test_the_largest_range_is_first_and_bytes_are_shared_as_records_are() -> None:
    first = {0: 0, 1: 10, 2: 5, 3: 0}
    assert ranges(first, {0: 10, 1: 40, 2: 5, 3: 60}) == [
        Range(3, 60, BATCH_BYTES * 60 // 100),
        Range(1, 40, BATCH_BYTES * 30 // 100),
        Range(0, 10, BATCH_BYTES * 10 // 100),
    ]


def test_a_log_that_ends_before_the_position_is_lost(broker: str) -> None:
    times = iter([0.0, 3.0, 10.0, 13.0, 13.1])
    ends = Ends({"bootstrap.servers": broker}, TOPIC, now=lambda: next(times))
    assert (ends.after({0: 7}), ends.after({0: 7})) == (None, None)
    # It was a broker that had been cut off.
    assert ends.after({0: 3, 1: 0}) == {0: 6, 1: 0}
    assert (ends.after({0: 7}), ends.after({0: 7})) == (None, None)
    with pytest.raises(LogLost, match="partition 0 ends at offset 6, and 7 was reached"):
        ends.after({0: 7})


def test_an_absent_broker_is_said_once_waited_for_and_given_up_after_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    times = iter([0.0, 60.0, 60.1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        client = {"bootstrap.servers": f"127.0.0.1:{free.getsockname()[1]}"}
        ends = Ends(client, TOPIC, now=lambda: next(times), answer_seconds=0.5)
        assert ends.after({0: 0}) is None
        assert ends.after({0: 0}) is None
        assert len([text for text in caplog.messages if text.startswith("Kafka does not answer: ")]) == 1
        with pytest.raises(KafkaException):
            ends.after({0: 0})


def read(broker: str, part: Range, position: Position) -> Slice:
    return read_slice({"bootstrap.servers": broker}, TOPIC, part, position, partitions=4)


def test_reading_goes_on_from_the_position_to_the_end_of_the_range(broker: str) -> None:
    piece = read(broker, Range(0, 5, 1_000), Position(2, 77))
    assert [(letter.offset, letter.key, letter.value) for letter in piece.dead_letters] == [
        (offset, b"k", VALUES[offset]) for offset in (2, 3, 4)
    ]
    assert (piece.first_offset, piece.next_offset, piece.records, piece.clock_us) == (2, 5, 3, 77)
    assert piece.newest_arrival_us % 1_000 == 0
    assert Slice.decode(piece.encode()) == piece


def test_a_slice_ends_when_its_bytes_are_used_up_and_has_a_record_at_least(broker: str) -> None:
    size = len(b"k" + VALUES[0])
    for max_bytes, count in ((1, 1), (size, 1), (size + 1, 2), (3 * size, 3)):
        piece = read(broker, Range(0, 6, max_bytes), Position(0, None))
        assert (piece.records, piece.next_offset) == (count, count)


def test_a_slice_ends_when_an_eighth_of_its_bytes_are_dead_letters(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streampulse.job.records._PIECE_BYTES", 1)
    size = LETTER_BYTES + len(b"k" + VALUES[0])
    assert read(broker, Range(0, 6, 8 * 2 * size), Position(0, None)).next_offset == 3


def test_a_position_that_the_log_does_not_hold_is_lost(broker: str) -> None:
    with pytest.raises(LogLost, match="partition 0 does not hold offset 100"):
        read(broker, Range(0, 120, 1_000), Position(100, None))


def test_a_log_that_was_cut_off_before_the_end_of_the_range_is_an_error(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streampulse.job.records._NEW_LEADER_SECONDS", 0.5)
    with pytest.raises(KafkaException, match="no record at offset 6"):
        read(broker, Range(0, 9, 100_000), Position(4, None))
