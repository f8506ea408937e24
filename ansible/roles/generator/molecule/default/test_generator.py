"""Events arrive on the topic, keyed by their stream, and keep arriving after a kill of the generator."""

import json
import time
from collections.abc import Callable, Iterator

import pytest
from asking import kill, run, settings
from kafka import KafkaConsumer, TopicPartition

ENV = settings("kafka")
TOPIC = ENV["STREAMPULSE_KAFKA_TOPIC"]


@pytest.fixture(scope="module")
def arriving() -> Iterator[Callable[[float], int]]:
    """Return a function that counts and checks new events, up to 50 or a time limit."""
    run("systemctl", "start", "streampulse-generator")
    consumer = KafkaConsumer(bootstrap_servers=ENV["STREAMPULSE_KAFKA_BOOTSTRAP_SERVERS"].split(","), group_id=None)
    partitions = [TopicPartition(TOPIC, number) for number in sorted(consumer.partitions_for_topic(TOPIC) or ())]
    consumer.assign(partitions)

    def count(seconds: float) -> int:
        consumer.seek_to_end()
        for partition in partitions:
            consumer.position(partition)
        seen, end = 0, time.monotonic() + seconds
        while seen < 50 and time.monotonic() < end:
            for record in (record for records in consumer.poll(timeout_ms=1000).values() for record in records):
                event = json.loads(record.value)
                assert record.key == event["stream_id"].encode()
                assert {"event_id", "ts", "event_type", "user_id"} <= event.keys()
                seen += 1
        return seen

    yield count
    consumer.close()


def test_events_arrive(arriving: Callable[[float], int]) -> None:
    assert arriving(30) >= 50


def test_events_arrive_after_a_kill(arriving: Callable[[float], int]) -> None:
    kill("streampulse-generator")
    assert arriving(45) >= 50
