"""Readers of topics on a real broker, in a topic that goes on behind what is read."""

import uuid
from contextlib import closing

from broker import Broker

from streampulse.core.settings import KafkaSettings
from streampulse.oracle.reader import Bounds, TopicReader
from streampulse.probe.topic import Topic

PARTITIONS = 2
# Several fetches of a partition.
RECORDS = 4_000
STEP = 170


def filled(broker: Broker) -> KafkaSettings:
    kafka = broker.topics(f"events-{uuid.uuid4()}", PARTITIONS)
    with broker.producer() as producer:
        for number in range(PARTITIONS * RECORDS):
            producer.send(kafka.topic, bytes(1_000), partition=number % PARTITIONS)
    return kafka


def test_readings_after_one_another_have_every_record_of_their_spans(broker: Broker) -> None:
    kafka = filled(broker)
    with closing(TopicReader(kafka)) as reader:
        for first in range(0, RECORDS - STEP, STEP):
            # One reading of both, in which one partition ends earlier, then one of each.
            both = {0: Bounds(first, first + 1), 1: Bounds(first, first + STEP)}
            for spans in (both, {0: Bounds(first, first + STEP)}, {1: Bounds(first, first + STEP)}):
                offsets: dict[int, list[int]] = {number: [] for number in spans}
                for record in reader.read(kafka.topic, spans):
                    offsets[record.partition].append(record.offset)
                assert offsets == {number: list(range(*span)) for number, span in spans.items()}


def test_the_probe_finds_an_arrival_in_each_partition_each_time(broker: Broker) -> None:
    topic = Topic(filled(broker), patience=5)
    for first in range(0, RECORDS - STEP, STEP):
        for offsets in ({0: first, 1: RECORDS - 1}, {0: first}, {1: first}):
            assert topic.arrivals(offsets, dict.fromkeys(offsets, RECORDS)).keys() == offsets.keys()
