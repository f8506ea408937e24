"""Dead letters, each exactly once: the topic ``stream.events.dlq`` as a ``read_committed`` consumer sees it.

A batch's letters and, as a consumer group's offsets, the position in ``stream.events`` up to which all letters are
out, are one Kafka transaction (KIP-98). It is committed before the batch's rows are. A batch that is taken up again
after a fault, whatever its borders, decides the same about each record, and letters below the group's offsets are
passed over. The producer's ``transactional.id`` fences a driver that is thought dead and is not.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.structs import OffsetAndMetadata

from streampulse.core.errors import one_line
from streampulse.core.kafka import connected
from streampulse.core.settings import KafkaSettings
from streampulse.job.positions import generation
from streampulse.job.rows import PRODUCER_HEADER, DeadLetter, DueLetter
from streampulse.job.shards import ALONE, Shard

log = logging.getLogger(__name__)

#: The consumer group whose offsets say up to where all dead letters have been written.
GROUP: Final = "streampulse-dead-letters"
#: A transaction is ended when its letters hold this much, so that it ends well within its time-out.
_TRANSACTION_BYTES: Final = 32 * 1024 * 1024
# A broker that does not answer a request for so long is taken for lost; after a loss twice as long, up to four times.
_SILENT_SECONDS: Final = 2.0
_CONNECT_SECONDS: Final = 4.0
# A step of a transaction is several requests. It may take this many times as long as one of them.
_STEP_REQUESTS: Final = 4
# How often a transaction is tried of which a broker did not answer a request.
_ATTEMPTS: Final = 6
#: How long Kafka may take to answer at a start. Without a limit the client waits for ever where an answer is lost.
ANSWER_SECONDS: Final = 15.0
#: The consumer group whose offset is the number of the last letter that is due by a recount and was sent. Its metadata
#: is the recount's id.
DUE_GROUP: Final = "streampulse-due-letters"


class Letters(Protocol):
    """Where the letters of batches go. ``lost``: by partition the first offset of each span that its log lost."""

    lost: dict[int, list[int]]

    def go_back(self, offsets: dict[int, int]) -> None:
        """Take positions back: see :meth:`DeadLetters.go_back`."""

    def write(
        self, letters: Sequence[DeadLetter], next_offsets: dict[int, int], on_progress: Callable[[], None]
    ) -> int:
        """Write a batch's letters: see :meth:`DeadLetters.write`."""


def _unwrapped(value: tuple[bytes | None]) -> bytes | None:
    return value[0]


class DeadLetters:
    """Writes dead letters. :meth:`open` first.

    :param settings: where Kafka is and what the topics are called.
    :param shard: whose letters they are.
    """

    def __init__(self, settings: KafkaSettings, shard: Shard = ALONE) -> None:
        self._settings = settings
        self._shard = shard
        self._producer: Any = None
        self._silent_seconds = _SILENT_SECONDS
        self._topic_id = ""
        self._written: dict[int, int] = {}
        #: By partition the first offset of each span that its log lost.
        self.lost: dict[int, list[int]] = {}

    def open(self, partitions: int, topic_id: str) -> None:
        """Fence earlier writers and learn up to where letters are out.

        :param partitions: how many partitions the topic of the events has.
        :param topic_id: its id; positions in an earlier topic of the same name say nothing about this one.
        :raises kafka.errors.KafkaError: the broker does not answer.
        """
        self._topic_id = topic_id
        self._start(self._shard)
        self._written = self._committed(GROUP, topic_id, partitions)

    def fence(self, count: int) -> None:
        """Fence the drivers of another number of shards: no letter of theirs comes after this.

        :raises kafka.errors.KafkaError: the broker does not answer.
        """
        for number in range(count):
            self._start(Shard(number, count))
            self.close()

    def _start(self, shard: Shard) -> None:
        """Start a shard's producer, which fences the one before."""
        self.close()
        self._producer = connected(
            KafkaProducer,
            _CONNECT_SECONDS,
            **self._settings.client_arguments("streampulse-job"),
            transactional_id=shard.transactional_id,
            transaction_timeout_ms=60_000,
            request_timeout_ms=round(1000 * self._silent_seconds),
            max_block_ms=round(1000 * self._step_seconds),
            compression_type="zstd",
            # A record without key and value is a dead letter like another; the client refuses to send None for both.
            value_serializer=_unwrapped,
        )
        self._producer.init_transactions()

    def _committed(self, group: str, metadata: str, partitions: int) -> dict[int, int]:
        """Return a group's offsets, 0 where one is missing or has other metadata."""
        consumer = connected(
            KafkaConsumer,
            _CONNECT_SECONDS,
            **self._settings.client_arguments("streampulse-job"),
            group_id=group,
            enable_auto_commit=False,
            isolation_level="read_committed",
            request_timeout_ms=round(1000 * self._silent_seconds),
        )
        try:
            offsets = {}
            for number in range(partitions):
                where = TopicPartition(self._settings.topic, number)
                found = consumer.committed(where, metadata=True, timeout_ms=ANSWER_SECONDS * 1000)
                ours = found is not None and found.offset >= 0 and found.metadata == metadata
                offsets[number] = found.offset if ours else 0
        finally:
            consumer.close()
        return offsets

    @property
    def _step_seconds(self) -> float:
        return _STEP_REQUESTS * self._silent_seconds

    @property
    def written(self) -> dict[int, int]:
        """By partition the offset below which all letters are out."""
        return dict(self._written)

    def close(self) -> None:
        """Close the producer; letters of a transaction that was not committed are never seen."""
        if self._producer is not None:
            # Without this the client first waits for records that no broker takes, and gives up while its thread runs.
            self._producer._sender.force_close()
            self._producer.close(timeout=self._step_seconds)
            self._producer = None

    def go_back(self, offsets: dict[int, int]) -> None:
        """Take the positions in partitions whose log lost what stood there back to these offsets, where they are past.

        :raises kafka.errors.KafkaError: the transaction failed.
        """
        past = {number: offset for number, offset in offsets.items() if self._written.get(number, 0) > offset}
        if past:
            self._transaction([], past)

    def write(
        self,
        letters: Sequence[DeadLetter],
        next_offsets: dict[int, int],
        on_progress: Callable[[], None] = lambda: None,
    ) -> int:
        """Write a batch's letters, but for those that are out already.

        Large numbers of bytes go out in several transactions, each of which moves the position on by itself.

        :param letters: the letters of the batch; those of one partition in offset order.
        :param next_offsets: for each partition of the batch the offset after its last record.
        :param on_progress: called after each transaction but the last.
        :returns: how many were written.
        :raises kafka.errors.KafkaError: a transaction failed; none of its letters is ever seen.
        """
        due = [letter for letter in letters if letter.offset >= self._written.get(letter.partition, 0)]
        if not due:
            return 0
        reached: dict[int, int] = {}
        size = 0
        piece: list[DeadLetter] = []
        for letter in due:
            piece.append(letter)
            reached[letter.partition] = letter.offset + 1
            size += letter.size()
            if size >= _TRANSACTION_BYTES:
                self._transaction(piece, reached)
                on_progress()
                piece, reached, size = [], {}, 0
        # The last transaction takes the position past the batch's good records too.
        self._transaction(piece, {letter.partition: next_offsets[letter.partition] for letter in due})
        return len(due)

    def send_due(self, letters: Sequence[DueLetter]) -> None:
        """Send the letters that are due by a recount, but for those that are out already.

        :param letters: those of one recount, by their numbers.
        :raises kafka.errors.KafkaError: a transaction failed; none of its letters is ever seen.
        """
        if not letters:
            return
        recount = letters[0].recount
        out = self._committed(DUE_GROUP, recount, 1)[0]
        size, piece = 0, list[DeadLetter]()
        for due in letters:
            if due.number > out:
                piece.append(due.letter)
                size += due.letter.size()
            if piece and (size >= _TRANSACTION_BYTES or due is letters[-1]):
                self._attempt(piece, {0: due.number}, DUE_GROUP, recount)
                size, piece = 0, []

    def _transaction(self, letters: Sequence[DeadLetter], reached: dict[int, int]) -> None:
        """Write letters, and try again with another producer where a broker does not answer.

        The client ends a producer for good then. Whether the transaction was committed, the group's offsets say.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if attempt > 1:
                    self.open(len(self._written), self._topic_id)
                if any(self._written.get(number) != offset for number, offset in reached.items()):
                    self._attempt(letters, reached)
            except KafkaError as error:
                silent = isinstance(error, KafkaTimeoutError) or "RequestTimedOutError" in str(error)
                if attempt == _ATTEMPTS or not silent:
                    raise
                log.warning("dead letters are not out: %s", one_line(error))
                self._silent_seconds = min(2 * self._silent_seconds, 4 * _SILENT_SECONDS)
            else:
                self._silent_seconds = _SILENT_SECONDS
                return

    def _attempt(
        self, letters: Sequence[DeadLetter], reached: dict[int, int], group: str = GROUP, metadata: str = ""
    ) -> None:
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
                    ("generation", str(generation(self.lost.get(letter.partition, ()), letter.offset)).encode()),
                    *([(PRODUCER_HEADER, letter.producer.encode())] if letter.producer else []),
                ],
            )
            for letter in letters
        ]
        self._producer.flush(60)
        for outcome in sent:
            outcome.get(timeout=60)
        offsets = {
            TopicPartition(topic, number): OffsetAndMetadata(offset, metadata or self._topic_id, -1)
            for number, offset in reached.items()
        }
        transaction = self._producer._transaction_manager
        self._finish(transaction.send_offsets_to_transaction(offsets, group))
        self._finish(transaction.begin_commit())
        if group == GROUP:
            self._written.update(reached)

    def _finish(self, step: Any) -> None:
        """Wait for a step of a transaction: the client's own calls wait without a limit.

        :raises kafka.errors.KafkaError: the step failed, or takes too long.
        """
        self._producer._sender.wakeup()
        if not step.wait(1000 * self._step_seconds):
            raise KafkaTimeoutError(f"a step of the transaction takes longer than {self._step_seconds:.0f} s")
