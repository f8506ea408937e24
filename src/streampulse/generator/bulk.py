"""Send many records quickly with librdkafka."""

from collections.abc import Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streampulse.core.errors import OperatorError
from streampulse.core.settings import KafkaSettings
from streampulse.generator.faults import Record

# Maximum number of unacknowledged records, some 250 bytes each.
_PENDING_AT_MOST: Final = 200_000
_CONNECT_SECONDS: Final = 10.0
# Without an acknowledgement for this long the broker counts as gone.
_DELIVERY_TIMEOUT_MS: Final = 60_000
# Silences librdkafka's own log lines about an absent broker; relevant errors are raised here.
_ONLY_CRITICAL: Final = 2


class BulkSender:
    """Sends batches of records, each to the partition that the caller names, in order and without duplicates."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._topic = settings.topic
        self._where = settings.bootstrap_servers
        self._error: KafkaError | None = None
        self._producer = Producer(
            {
                **settings.librdkafka_options("streampulse-fill"),
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 50,
                # The broker's limit (256 KiB for this topic) applies to a whole request.
                "batch.size": 200_000,
                "queue.buffering.max.messages": 2 * _PENDING_AT_MOST,
                "message.timeout.ms": _DELIVERY_TIMEOUT_MS,
                # A Python callback for each acknowledged record would cost as much as making the record.
                "delivery.report.only.error": True,
                # The same partitioner as Kafka's own clients; the callers have computed the partition already.
                "partitioner": "murmur2_random",
                "log_level": _ONLY_CRITICAL,
            }
        )

    def partitions(self) -> int:
        """Return the number of partitions of the topic.

        :raises OperatorError: Kafka does not answer, or has no such topic.
        """
        try:
            topic = self._producer.list_topics(self._topic, timeout=_CONNECT_SECONDS).topics[self._topic]
        except KafkaException as error:
            reason = error.args[0].str()
            raise OperatorError(f"Kafka at {self._where} does not answer: {reason} (inv doctor)") from None
        if topic.error is not None:
            raise OperatorError(f"Kafka has no topic {self._topic}: make it with inv up")
        return len(topic.partitions)

    def send(self, partition: int, records: Sequence[Record]) -> None:
        """Enqueue a batch. Waits first while too many records are unacknowledged.

        :raises OperatorError: an earlier record was given up.
        """
        while len(self._producer) > _PENDING_AT_MOST:
            self._producer.poll(0.01)
        self._producer.poll(0)
        self._check()
        # produce_batch needs a dictionary for each record, which costs more than it saves.
        produce, topic, delivered = self._producer.produce, self._topic, self._delivered
        for record in records:
            produce(topic, key=record.key, value=record.value, partition=partition, on_delivery=delivered)

    def flush(self) -> None:
        """Wait until every record is acknowledged.

        :raises OperatorError: a record was given up.
        """
        # Each record is acknowledged or given up after its own time-out.
        while self._producer.flush(1.0):
            self._check()
        self._check()

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None and self._error is None:
            self._error = error

    def _check(self) -> None:
        if self._error is not None:
            raise OperatorError(f"Kafka at {self._where} did not take everything: {self._error.str()} (inv doctor)")
