"""Dead letters, each exactly once: the topic ``stream.events.dlq`` as a ``read_committed`` consumer sees it.

A batch's letters and, as a consumer group's offsets, the position in ``stream.events`` up to which all letters are
out, are one Kafka transaction (KIP-98). It is committed before the batch's rows are. A batch that is taken up again
after a fault, whatever its borders, decides the same about each record, and letters below the group's offsets are
passed over. The producer's ``transactional.id`` fences a driver that is thought dead and is not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaTimeoutError
from kafka.structs import OffsetAndMetadata

from streampulse.job.rows import DeadLetter
from streampulse.settings import KafkaSettings

#: The consumer group whose offsets say up to where all dead letters have been written.
GROUP: Final = "streampulse-dead-letters"
TRANSACTIONAL_ID: Final = "streampulse-dead-letters"
#: A compressed record may unpack to far more than the topic's limit; the limit on the wire is the broker's to enforce.
_MAX_REQUEST_BYTES: Final = 128 * 1024 * 1024
#: A transaction is ended when its letters hold this much, so that it ends well within its time-out.
_TRANSACTION_BYTES: Final = 32 * 1024 * 1024
_READ_SECONDS: Final = 60.0


def _unwrapped(value: tuple[bytes | None]) -> bytes | None:
    return value[0]


class DeadLetters:
    """Writes dead letters. :meth:`open` first.

    :param settings: where Kafka is and what the topics are called.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer: Any = None
        self._written: dict[int, int] = {}

    def open(self, partitions: int) -> None:
        """Fence earlier writers and learn up to where letters are out.

        :param partitions: how many partitions the topic of the events has.
        :raises kafka.errors.KafkaError: the broker does not answer.
        """
        self.close()
        self._producer = KafkaProducer(
            **self._settings.client_arguments("streampulse-job"),
            transactional_id=TRANSACTIONAL_ID,
            transaction_timeout_ms=60_000,
            compression_type="zstd",
            max_request_size=_MAX_REQUEST_BYTES,
            # A record without key and value is a dead letter like another; the client refuses to send None for both.
            value_serializer=_unwrapped,
        )
        self._producer.init_transactions()
        consumer = KafkaConsumer(
            **self._settings.client_arguments("streampulse-job"),
            group_id=GROUP,
            enable_auto_commit=False,
            isolation_level="read_committed",
        )
        try:
            topic = self._settings.topic
            self._written = {
                number: consumer.committed(TopicPartition(topic, number)) or 0 for number in range(partitions)
            }
        finally:
            consumer.close()

    def close(self) -> None:
        """Close the producer; letters of a transaction that was not committed are never seen."""
        if self._producer is not None:
            self._producer.close(timeout=5)
            self._producer = None

    def restart(self, partition: int) -> None:
        """Forget the position in a partition whose log has begun anew."""
        self._written[partition] = 0

    def write(self, letters: Sequence[DeadLetter], next_offsets: dict[int, int]) -> int:
        """Write a batch's letters, but for those that are out already.

        Large numbers of bytes go out in several transactions, each of which moves the position on by itself.

        :param letters: the letters of the batch; those of one partition in offset order.
        :param next_offsets: for each partition of the batch the offset after its last record.
        :returns: how many were written.
        :raises kafka.errors.KafkaError: a transaction failed; none of its letters is ever seen.
        """
        due = [letter for letter in letters if letter.offset >= self._written.get(letter.partition, 0)]
        if not due:
            return 0
        reached: dict[int, int] = {}
        size = 0
        piece: list[DeadLetter] = []
        for letter in self._with_bytes(due):
            piece.append(letter)
            reached[letter.partition] = letter.offset + 1
            size += len(letter.key or b"") + len(letter.value or b"")
            if size >= _TRANSACTION_BYTES:
                self._transaction(piece, reached)
                piece, reached, size = [], {}, 0
        # The last transaction takes the position past the batch's good records too.
        self._transaction(piece, {letter.partition: next_offsets[letter.partition] for letter in due})
        return len(due)

    def _transaction(self, letters: Sequence[DeadLetter], reached: dict[int, int]) -> None:
        topic = self._settings.topic
        self._producer.begin_transaction()
        sent = [
            self._producer.send(
                self._settings.dlq_topic,
                key=letter.key,
                value=(letter.value,),
                headers=[
                    ("reason", letter.reason.encode()),
                    ("detail", letter.detail.encode()),
                    ("topic", topic.encode()),
                    ("partition", str(letter.partition).encode()),
                    ("offset", str(letter.offset).encode()),
                ],
            )
            for letter in letters
        ]
        self._producer.flush()
        for outcome in sent:
            outcome.get(timeout=60)
        self._producer.send_offsets_to_transaction(
            {TopicPartition(topic, number): OffsetAndMetadata(offset, "", -1) for number, offset in reached.items()},
            GROUP,
        )
        self._producer.commit_transaction()
        self._written.update(reached)

    def _with_bytes(self, letters: Sequence[DeadLetter]) -> Iterator[DeadLetter]:
        """Yield the letters with their records' own key and value, read again where they were not carried."""
        consumer: Any = None
        try:
            for letter in letters:
                if letter.carried:
                    yield letter
                    continue
                if consumer is None:
                    consumer = KafkaConsumer(
                        **self._settings.client_arguments("streampulse-job"),
                        enable_auto_commit=False,
                        isolation_level="read_committed",
                    )
                record = _read(consumer, TopicPartition(self._settings.topic, letter.partition), letter.offset)
                yield letter._replace(key=record.key, value=record.value, carried=True)
        finally:
            if consumer is not None:
                consumer.close()


def _read(consumer: Any, partition: TopicPartition, offset: int) -> Any:
    """Return the record at an offset, reading on where the consumer stands there already.

    :raises KafkaTimeoutError: the broker did not hand it out within a minute.
    """
    if consumer.assignment() != {partition}:
        consumer.assign([partition])
    if consumer.position(partition) != offset:
        consumer.seek(partition, offset)
    deadline = time.monotonic() + _READ_SECONDS
    while time.monotonic() < deadline:
        for record in consumer.poll(timeout_ms=1_000, max_records=1).get(partition, []):
            if record.offset == offset:
                return record
            raise KafkaTimeoutError(f"offset {offset} of {partition.topic} {partition.partition} is gone")
    raise KafkaTimeoutError(f"offset {offset} of {partition.topic} {partition.partition} could not be read again")
