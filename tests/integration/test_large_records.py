"""Records that compress well pass, whatever they unpack to, and cost the memory of one batch."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker import Broker
from conftest import Database
from pipeline import Pipeline
from postgres import WRITER

from streampulse.core.settings import KafkaSettings
from streampulse.job.ranges import BATCH_BYTES

MB = 1_000_000
STREAM = b"stream"
TOO_LARGE = "value: larger than 262144 bytes"


@pytest.fixture
def kafka(broker: Broker) -> KafkaSettings:
    return broker.topics(f"events-{uuid.uuid4()}")


@pytest.fixture
def pipeline(kafka: KafkaSettings, database: Database) -> Iterator[Pipeline]:
    made = Pipeline(kafka, database.settings(WRITER))
    yield made
    made.stop()


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
        pytest.param("value", 20 * MB, "zstd", 12, id="a dozen values"),
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
    assert peak.grown() < 3 * size + 50 * MB
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
