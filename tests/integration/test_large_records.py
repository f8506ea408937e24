"""Records that compress well pass, whatever they unpack to, and cost the memory of one batch."""

import json
import struct
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from broker import Broker
from conftest import Database
from kafka.record.util import calc_crc32c, decode_varint
from pipeline import Pipeline

from streampulse.core.errors import OperatorError
from streampulse.core.settings import KafkaSettings
from streampulse.events import MAX_BATCH_BYTES
from streampulse.job.ranges import BATCH_BYTES

MB = 1_000_000
#: What the small batches of one fetch unpack to at most: record 0046.
FETCH_BYTES = 128 * 1024 * 1024
STREAM = b"stream"
TOO_LARGE = "value: larger than 262144 bytes"


def event() -> bytes:
    fields = {"event_id": str(uuid.uuid4()), "stream_id": STREAM.decode(), "user_id": "u", "event_type": "viewer_join"}
    return json.dumps({**fields, "ts": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}).encode()


class Peak:
    """The growth of this process's memory since it was made, in bytes, at its highest."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._before = self._highest()

    def _highest(self) -> int:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def grown(self) -> int:
        return self._highest() - self._before


@pytest.mark.parametrize(
    ("part", "size", "codec", "count"),
    [
        pytest.param("value", 20 * MB, "zstd", 36, id="three dozen values"),
        pytest.param("key", 20 * MB, "gzip", 3, id="keys"),
        pytest.param("headers", 20 * MB, "lz4", 12, id="a dozen headers"),
        pytest.param("value", 5 * MB, "snappy", 4, id="values in snappy"),
        pytest.param("value", 256 * MB, "zstd", 1, id="the largest"),
    ],
)
def test_large_records_pass_in_the_memory_of_one_batch(
    broker: Broker, kafka: KafkaSettings, pipeline: Pipeline, part: str, size: int, codec: str, count: int
) -> None:
    large = b"{" + b"a" * (size - 1)
    fields: dict[str, object] = {"value": b"x", part: [("large", large)] if part == "headers" else large}
    with broker.producer(compression_type=codec, max_request_size=400 * MB, linger_ms=0) as producer:
        for _ in range(count):
            producer.send(kafka.topic, partition=0, **fields).get(60)
        producer.send(kafka.topic, event(), key=STREAM).get(10)
    pipeline.start()
    peak = Peak()
    slices = pipeline.read(0, broker.end(kafka.topic))
    # librdkafka's queue does not count headers, so several batches of them are in memory: record 0046.
    fetched = max(size, min(count * size, FETCH_BYTES))
    assert part == "headers" or peak.grown() < 3 * fetched + 50 * MB
    assert sum(len(piece.rows) for piece in slices) == 1
    letters = [letter for piece in slices for letter in piece.dead_letters]
    assert len(letters) == count
    if part != "headers":
        assert {letter.detail for letter in letters} == {TOO_LARGE}
        kept = [letter.key if part == "key" else letter.value for letter in letters]
        assert kept == [large[:65_536]] * count
    pipeline.commit(slices)
    peak = Peak()
    report = pipeline.verify()
    assert peak.grown() < 4 * size + 50 * MB
    assert (report.differences, report.not_checked) == ([], [])


Edit = Callable[[bytearray, int, int], None]


def send_three_batches(broker: Broker, topic: str) -> None:
    """Send three batches of ten events."""
    for _ in range(3):
        with broker.producer(linger_ms=1_000) as producer:
            for _ in range(10):
                producer.send(topic, event(), key=STREAM)


def damage(broker: Broker, topic: str, first: int, edit: Edit, is_checksum_right: bool = True) -> None:
    """Edit the bytes of a batch's records: ``edit`` gets the file's bytes, and where the records begin and end."""
    (file,) = (broker.data / f"{topic}-0").glob("*.log")
    data, position = bytearray(file.read_bytes()), 0
    while struct.unpack_from(">q", data, position)[0] != first:
        position += 12 + struct.unpack_from(">i", data, position + 8)[0]
    end = position + 12 + struct.unpack_from(">i", data, position + 8)[0]
    edit(data, position + 61, end)
    if is_checksum_right:
        struct.pack_into(">I", data, position + 17, calc_crc32c(bytes(data[position + 21 : end])))
    with file.open("r+b") as handle:
        handle.write(data)


def break_codec(data: bytearray, begin: int, _: int) -> None:
    """Change the codec's header."""
    for at in range(begin, begin + 16):
        data[at] ^= 0x5A


def lengthen(number: int) -> Edit:
    """Return an edit that makes the length of an uncompressed record by 7 too large."""

    def edit(data: bytearray, at: int, _: int) -> None:
        for _ in range(number):
            length, at = decode_varint(data, at)
            at += length
        data[at] += 2 * 7  # the low bits of a varint in zigzag

    return edit


def flip(data: bytearray, _: int, end: int) -> None:
    data[end - 3] ^= 0xFF


def test_batches_that_cannot_be_unpacked_are_excluded_and_the_others_are_counted(
    broker: Broker, kafka: KafkaSettings, pipeline: Pipeline, database: Database
) -> None:
    firsts = []
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        with broker.producer(compression_type=codec, linger_ms=1_000) as producer:
            for _ in range(10):
                producer.send(kafka.topic, event(), key=STREAM)
        firsts.append(broker.end(kafka.topic))
        with broker.producer(compression_type=codec, linger_ms=1_000) as producer:
            for _ in range(9):
                producer.send(kafka.topic, event(), key=STREAM)
    with broker.producer(compression_type="zstd", max_request_size=400 * MB) as producer:
        producer.send(kafka.topic, b"x" * (MAX_BATCH_BYTES + 1), partition=0).get(60)
    for first in firsts:
        damage(broker, kafka.topic, first, break_codec)
    end = broker.end(kafka.topic)
    # Reading begins before, in, and right after a batch that cannot be read.
    for until in (firsts[1], firsts[1] + 4, firsts[1] + 9, end - 1, end):
        pipeline.start()
        pipeline.count(0, until)
    report = pipeline.equal(whole=True)
    assert report.outcomes == {"accepted": 40, "invalid": 4 * 9 + 1}
    entries = database.query(
        "SELECT first_offset, last_offset, reason, pending FROM excluded_records ORDER BY first_offset"
    )
    second = firsts[1]
    runs = [(firsts[0], 9), (second, 4), (second + 4, 5), (firsts[2], 9), (firsts[3], 9), (end - 1, 1)]
    assert entries == [(first, first + count - 1, "invalid", False) for first, count in runs]
    database.execute("DELETE FROM excluded_records")
    with pytest.raises(OperatorError, match=f"the batch of offsets {firsts[0]} to {firsts[0] + 8} cannot be unpacked"):
        pipeline.verify()


@pytest.mark.parametrize(
    ("edit", "is_checksum_right", "until"),
    [
        pytest.param(flip, False, 30, id="checksum"),
        pytest.param(lengthen(0), True, 30, id="first record"),
        pytest.param(lengthen(4), True, 30, id="fifth record"),
        pytest.param(lengthen(4), True, 12, id="a range that ends in the batch"),
    ],
)
def test_a_batch_with_wrong_bytes_is_excluded_and_the_records_behind_it_are_counted(
    broker: Broker,
    kafka: KafkaSettings,
    pipeline: Pipeline,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    edit: Edit,
    is_checksum_right: bool,
    until: int,
) -> None:
    monkeypatch.setattr("streampulse.job.records._SILENT_SECONDS", 1.0)
    send_three_batches(broker, kafka.topic)
    damage(broker, kafka.topic, 10, edit, is_checksum_right)
    pipeline.start()
    first = 10 if until == 30 else until
    for end in (until, 30):
        pipeline.count(0, end)
    report = pipeline.equal(whole=True)
    assert report.outcomes == {"accepted": 20 + first - 10, "invalid": 20 - first}
    entries = database.query("SELECT first_offset, last_offset, reason FROM excluded_records ORDER BY 1")
    assert entries == [(first, 19, "invalid")]


class _Away(list[object]):
    """The outages of a broker that was away while the first reading began."""

    def __init__(self) -> None:
        super().__init__()
        self._first = True

    def clear(self) -> None:
        self[:], self._first = [None] * self._first, False


def test_damage_is_examined_though_a_broker_was_away(
    broker: Broker, kafka: KafkaSettings, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_three_batches(broker, kafka.topic)
    damage(broker, kafka.topic, 10, flip, False)
    pipeline.start()
    monkeypatch.setattr("streampulse.job.records._outages", _Away())
    pipeline.count(0, 30)
    assert pipeline.equal(whole=True).outcomes == {"accepted": 20, "invalid": 10}


def test_a_batch_that_compresses_1_to_1000_is_read_in_slices_of_bounded_bytes(
    broker: Broker, kafka: KafkaSettings, pipeline: Pipeline
) -> None:
    count, garbage = 600, b"x" * 250_000
    with broker.producer(
        compression_type="zstd", max_request_size=400 * MB, batch_size=400 * MB, linger_ms=5_000
    ) as producer:
        for _ in range(count):
            producer.send(kafka.topic, garbage, key=STREAM)
    assert sum(file.stat().st_size for file in (broker.data / f"{kafka.topic}-0").glob("*.log")) < count * 250
    pipeline.start()
    slices = pipeline.read(0, count)
    assert sum(len(piece.dead_letters) for piece in slices) == count
    assert max(len(piece.encode()) for piece in slices) < BATCH_BYTES // 8 + 2 * MB
