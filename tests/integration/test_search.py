"""With a real Spark: a record that ends executors is excluded, executors that are killed exclude nothing."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import spark
from broker import Broker, event
from conftest import Database
from kafka import KafkaProducer
from pipeline import Pipeline
from postgres import WRITER

from streampulse.core.settings import KafkaSettings
from streampulse.events import partition_of
from streampulse_ops.bench.race.runners import Tools

# Run by each Python process at its start. Some records end their executor or its Python worker when they are decoded;
# others do it as every sixth of a worker.
CUSTOMIZE = """
import os, signal
from pathlib import Path
from streampulse import events

def end_executor():
    process = os.getpid()
    while b"CoarseGrainedExecutorBackend" not in Path(f"/proc/{process}/cmdline").read_bytes():
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(process, signal.SIGKILL)
    signal.pause()

def parse(key, value, *rest):
    if b"ends the worker" in (value or b""):
        os.kill(os.getpid(), signal.SIGKILL)
    if b"ends the executor" in (value or b""):
        end_executor()
    if b"sixth" in (value or b""):
        decoded.append(value)
        if len(decoded) == 6:
            end_executor()
    return original(key, value, *rest)

decoded = []
original, events.parse = events.parse, parse
"""
KEYS = [
    next(f"stream-{n}" for n in range(99) if partition_of(f"stream-{n}".encode(), 2) == number) for number in (0, 1)
]


def send(producer: KafkaProducer, topic: str, number: int, user: str) -> None:
    """Send an event to a partition. Its type has an escape, which only the decoder of single records reads."""
    value = event(KEYS[number], user_id=user).replace(b"viewer_join", rb"viewer_\u006aoin")
    producer.send(topic, value, KEYS[number].encode(), partition=number)


@pytest.fixture(scope="module")
def home() -> Iterator[Tools]:
    with spark.unpacked() as folder:
        yield folder


@pytest.fixture
def kafka(broker: Broker) -> KafkaSettings:
    return broker.topics(f"events-{uuid.uuid4()}", partitions=2)


@pytest.fixture
def job(home: Tools, tmp_path: Path, kafka: KafkaSettings, database: Database) -> Iterator[spark.Job]:
    with spark.Job(home, tmp_path, kafka, database.settings(WRITER), CUSTOMIZE) as running:
        yield running


def wait_until_read(broker: Broker, kafka: KafkaSettings, database: Database, job: spark.Job) -> None:
    ends = {str(number): broker.end(kafka.topic, number) for number in (0, 1)}
    deadline = time.monotonic() + 600
    while True:
        found = database.query("SELECT offsets FROM batch_ledger ORDER BY seq DESC LIMIT 1")
        if found == [(ends,)]:
            return
        assert time.monotonic() < deadline, (found, ends, job.log()[-8_000:])
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("ends", "count", "killers"),
    [("the worker", 40, {(0, 0), (0, 1)}), ("the executor", 20, {(1, 17)})],
    ids=["Python worker", "executor"],
)
def test_exactly_the_records_that_end_executors_are_excluded(
    broker: Broker,
    kafka: KafkaSettings,
    database: Database,
    job: spark.Job,
    ends: str,
    count: int,
    killers: set[tuple[int, int]],
) -> None:
    with broker.producer() as producer:
        for offset in range(count):
            for number in (0, 1):
                user = f"ends {ends}" if (number, offset) in killers else f"user-{offset}"
                send(producer, kafka.topic, number, user)
    wait_until_read(broker, kafka, database, job)

    entries = database.query(
        "SELECT partition, generate_series(first_offset, last_offset), reason, pending FROM excluded_records"
    )
    assert set(entries) == {(*killer, "invalid", False) for killer in killers}
    assert job.ends == 0
    report = Pipeline(kafka, database.settings(WRITER)).verify()
    assert report.differences == []
    assert report.outcomes == {"accepted": 2 * count - len(killers), "invalid": len(killers)}


def test_executors_that_end_whatever_they_read_exclude_nothing(
    broker: Broker, kafka: KafkaSettings, database: Database, job: spark.Job
) -> None:
    with broker.producer() as producer:
        for _ in range(12):
            for number in (0, 1):
                send(producer, kafka.topic, number, "sixth")
    wait_until_read(broker, kafka, database, job)
    assert "executors ended while they read" in job.log()
    assert database.query("SELECT * FROM excluded_records") == []
    report = Pipeline(kafka, database.settings(WRITER)).verify()
    assert report.differences == []
    assert report.outcomes == {"accepted": 24}
