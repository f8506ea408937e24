"""Dead letters: counted, shown, and sent again with the outcome that was predicted."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from broker import Broker, event
from conftest import Database
from pipeline import Pipeline
from postgres import WRITER

from streampulse.answers.conditions import Where
from streampulse.answers.dlq import listed
from streampulse.answers.facts import read_facts
from streampulse.answers.letters import Letters
from streampulse.answers.output import database as connected
from streampulse.answers.replay import Replay, edited, edits
from streampulse.core.settings import KafkaSettings
from streampulse.events import partition_of
from streampulse.oracle.reader import TopicReader

PARTITIONS = 3
STREAMS = [f"stream-{number}" for number in range(8)]


@contextmanager
def running(broker: Broker, topic: str, pipeline: Pipeline) -> Iterator[None]:
    """Have the job count in the background."""
    ends = threading.Event()

    def count() -> None:
        while not ends.wait(0.1):
            for number in range(PARTITIONS):
                pipeline.count(number, broker.end(topic, number))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


@contextmanager
def replaying(kafka: KafkaSettings, database: Database) -> Iterator[tuple[Replay, Letters]]:
    with closing(TopicReader(kafka)) as reader, connected(database.settings(WRITER), "dlq") as connection:
        facts = read_facts(connection, reader, kafka.topic)
        yield Replay(reader, kafka, connection, facts, "ann@desk"), Letters(reader, kafka.dlq_topic, kafka.topic)


def mixed() -> list[tuple[str, int, bytes, int | None]]:
    """Return records of 1,000 dead letters: stream, partition, value, and a stamp in milliseconds if it is old."""
    records: list[tuple[str, int, bytes, int | None]] = []
    now_ms = time.time_ns() // 1_000_000
    for number in range(1_000):
        stream = STREAMS[number % len(STREAMS)]
        right = partition_of(stream.encode(), PARTITIONS)
        wrong, kind = (right + 1) % PARTITIONS, number // len(STREAMS) % 7
        if kind == 0:
            records.append((stream, right, event(stream, -20), None))  # late, and late again
        elif kind == 1:
            records.append((stream, right, b"garbage", None))  # invalid again
        elif kind == 2:
            records.append((stream, wrong, event(stream), None))  # invalid, and accepted
        elif kind == 3:
            value = event(stream)
            records += [(stream, right, value, None), (stream, wrong, value, None)]  # a duplicate
        elif kind == 4:
            records.append((stream, right, event(stream, -1), now_ms - 600_000))  # from the future, and accepted
        elif kind == 5:
            records.append((stream, right, event(stream, -10.2), None))  # late, near the limit
        else:
            records.append((stream, right, event(stream, user_id="x" * 300_000), None))  # cut
    return records


def test_a_replay_comes_to_what_was_predicted_and_a_second_one_is_refused(broker: Broker, database: Database) -> None:
    kafka = broker.topics(f"events-{uuid.uuid4()}", PARTITIONS)
    pipeline = Pipeline(kafka, database.settings(WRITER))
    pipeline.start()
    records = mixed()
    broker.stamp(kafka.topic, "CreateTime")
    with broker.producer(max_request_size=1_000_000, compression_type="zstd") as producer:
        for stream in STREAMS:
            producer.send(kafka.topic, event(stream), key=stream.encode())
        producer.flush()
        for stream, partition, value, stamp in records:
            producer.send(kafka.topic, value, stream.encode(), partition=partition, timestamp_ms=stamp)
    broker.stamp(kafka.topic, "LogAppendTime")
    for number in range(PARTITIONS):
        pipeline.count(number, broker.end(kafka.topic, number))

    with running(broker, kafka.topic, pipeline), replaying(kafka, database) as (replay, letters):
        found = list(letters.all(Where()))
        replay.predict(found, {})
        assert len(found) == 1_000
        assert dict(replay.refused) == {
            "its value was cut; its producer has to send the event again": sum(
                letter.detail.startswith("value: larger") for letter in found
            )
        }
        predicted = {(each.decision.outcome, each.uncertain) for each in replay.due}
        assert predicted >= {(each, False) for each in ("accepted", "duplicate", "late", "invalid")} | {("late", True)}
        assert any("late again" in line for line in replay.said())
        replay.send()
        verdict, *_ = replay.compared(letters)
        assert replay.surprises == []
        assert verdict == f"replayed {len(replay.due):,} letters, as predicted"
    with replaying(kafka, database) as (replay, letters):
        everything = list(letters.all(Where()))
        assert len(everything) > len(found)
        replay.predict(everything, {})
        assert replay.due == []
        assert sum(replay.refused.values()) == len(everything)
        assert any(why.startswith("replayed before, by ann@desk at ") for why in replay.refused)
    pipeline.equal()
    pipeline.stop()
    ((sent,),) = database.query("SELECT count(*)::int FROM replayed_letters WHERE new_offset IS NOT NULL")
    assert sent == sum(not letter.detail.startswith("value: larger") for letter in found)


def test_a_field_is_corrected_before_the_replay_and_its_producer_is_named(
    broker: Broker, kafka: KafkaSettings, database: Database, pipeline: Pipeline
) -> None:
    pipeline.start()
    with broker.producer() as producer:
        bad = event("red", event_type="donation", amount_usd="5,10", big=1.10)
        producer.send(kafka.topic, bad, b"red", headers=[("client.id", b"shop")]).get(10)
    pipeline.count(0, 1)
    assert listed(database.settings(WRITER), Where())[-2:] == [
        listed(database.settings(WRITER), Where(reason="invalid", stream="red"))[1],
        "1 letters in 1 groups",
    ]
    assert listed(database.settings(WRITER), Where())[1].split()[2:] == ["invalid", "red", "shop"]
    assert listed(database.settings(WRITER), Where(stream="blue")) == ["no dead letters"]
    with replaying(kafka, database) as (replay, letters):
        (letter,) = letters.newest(Where(stream="red"), 3)
        assert (letter.producer, letter.value) == ("shop", bad)
        replay.predict([letter], edits(["amount_usd=5.10"]))
        (due,) = replay.due
        assert (due.decision.outcome, due.uncertain) == ("accepted", False)
        assert json.loads(due.value)["amount_usd"] == 5.10
        assert b'"big":1.1' in due.value
        replay.send()
        pipeline.count(0, 2)
        assert replay.compared(letters)[0] == "replayed 1 letters, as predicted"
    pipeline.equal()


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("amount_usd=5.10", b'{"a":1.10,"amount_usd":5.10}'),
        ("user_id=7", b'{"a":1.10,"user_id":"7"}'),
        ("note=a b", b'{"a":1.10,"note":"a b"}'),
    ],
)
def test_setting_a_field_keeps_the_others_digit_by_digit(given: str, value: bytes) -> None:
    assert edited(b'{"a": 1.10}', edits([given])) == value


def test_a_million_letters_are_listed_in_two_seconds(database: Database) -> None:
    database.execute(
        "INSERT INTO dead_letter_groups SELECT to_timestamp(bucket * 300), 'late', 'stream-' || g, '', 6,"
        " to_timestamp(bucket * 300 + 9) FROM generate_series(5900000, 5908640) AS bucket, generate_series(1, 20) AS g"
    )
    database.execute("ANALYZE dead_letter_groups")
    begun = time.monotonic()
    lines = listed(database.settings(), Where())
    assert time.monotonic() - begun < 2
    assert lines[-1] == "1,036,920 letters in 20 groups"
