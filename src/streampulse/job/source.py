"""Where reading starts: the ledger's offsets held against the log as it is now."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from streampulse.core.errors import OperatorError
from streampulse.core.settings import KafkaSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Topic:
    """The topic of the events as the broker describes it. Offsets by partition."""

    topic_id: str
    partitions: int
    earliest: dict[int, int]
    latest: dict[int, int]


@dataclass(frozen=True, slots=True)
class Start:
    """Where to read from, by partition, and which partitions' logs ended before that or were begun anew."""

    offsets: dict[int, int]
    gone_back: list[int]

    def spark_option(self, topic: str) -> str:
        """Return the value of the Kafka source's ``startingOffsets``."""
        return json.dumps({topic: {str(number): offset for number, offset in sorted(self.offsets.items())}})


def describe(settings: KafkaSettings) -> Topic:
    """Ask the broker for the topic of the events.

    :raises OperatorError: there is no such topic.
    :raises kafka.errors.KafkaError: the broker does not answer.
    """
    admin = KafkaAdminClient(**settings.client_arguments("streampulse-job"))
    try:
        found = [entry for entry in admin.describe_topics([settings.topic]) if not entry.get("error_code")]
    finally:
        admin.close()
    if not found or not found[0].get("partitions"):
        raise OperatorError(f"Kafka has no topic {settings.topic}: make it with inv up")
    partitions = len(found[0]["partitions"])
    consumer = KafkaConsumer(**settings.client_arguments("streampulse-job"), enable_auto_commit=False)
    try:
        every = [TopicPartition(settings.topic, number) for number in range(partitions)]
        earliest = {tp.partition: offset for tp, offset in consumer.beginning_offsets(every).items()}
        latest = {tp.partition: offset for tp, offset in consumer.end_offsets(every).items()}
    finally:
        consumer.close()
    return Topic(str(found[0]["topic_id"]), partitions, earliest, latest)


def decide_start(topic: Topic, next_offsets: dict[int, int], topic_id: str | None) -> Start:
    """Decide from where each partition is read, and say in the log what cannot be read any more.

    :param next_offsets: the ledger's offsets; a partition without one is read from its beginning.
    :param topic_id: the id of the topic that these are of, None where nothing was committed.
    """
    remade = topic_id is not None and topic_id != topic.topic_id
    offsets, gone_back = {}, []
    for number in range(topic.partitions):
        earliest, latest = topic.earliest[number], topic.latest[number]
        wanted = next_offsets.get(number, 0)
        if remade:
            log.error(
                "partition %d: Kafka's log was lost and begun anew; reading from %d, what was counted is kept",
                number,
                earliest,
            )
            gone_back.append(number)
            wanted = earliest
        elif wanted > latest:
            # Of what is still there, everything was counted before: a broker that lost power lost the newest records.
            log.error(
                "partition %d: Kafka's log lost its end, it ends at offset %d where %d was reached; reading from %d,"
                " what was counted is kept",
                number,
                latest,
                wanted,
                latest,
            )
            gone_back.append(number)
            wanted = latest
        elif wanted < earliest:
            log.error("partition %d: records %d to %d were deleted unread", number, wanted, earliest - 1)
            wanted = earliest
        offsets[number] = wanted
    return Start(offsets, gone_back)
