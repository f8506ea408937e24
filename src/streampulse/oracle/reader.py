"""Read Kafka topics from their beginning, as a ``read_committed`` consumer."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from streampulse.core.errors import OperatorError
from streampulse.core.kafka import SMALL, CannotUnpack, Log, Topic, connected
from streampulse.core.settings import KafkaSettings
from streampulse.oracle.decide import Record

#: Seconds without data, while records are outstanding, after which the broker is reported.
STALL_SECONDS: Final = 30.0
#: Limit for each answer about a topic.
ANSWER_SECONDS: Final = 15.0


class Bounds(NamedTuple):
    """The log of one partition: the first offset it holds, and the offset after its last committed record."""

    start: int
    end: int


class Letter(NamedTuple):
    """One record of the dead-letter topic, with raw headers (a name may occur twice)."""

    record: Record
    headers: tuple[tuple[str, bytes | None], ...]


class TopicReader:
    """A consumer without a group, which commits no offsets."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Connect.

        :raises OperatorError: no broker answers.
        """
        self._settings = settings
        self._servers = settings.bootstrap_servers
        self._excluded: Mapping[int, Sequence[Bounds]] = {}
        try:
            self._consumer = connected(
                KafkaConsumer,
                ANSWER_SECONDS,
                **settings.client_arguments("streampulse-verify"),
                group_id=None,
                enable_auto_commit=False,
                isolation_level="read_committed",
                # Never reset: an offset removed during the read must be reported.
                auto_offset_reset="none",
                request_timeout_ms=round(ANSWER_SECONDS * 1000),
                **SMALL,
            )
        except KafkaError as error:
            raise self._unreachable(error) from None

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()

    def _unreachable(self, error: Exception) -> OperatorError:
        reason = str(error) or type(error).__name__
        return OperatorError(f"Kafka at {self._servers} does not answer ({reason}): inv logs kafka")

    def _log(self, topic: str) -> Log:
        try:
            with Topic(self._settings, "streampulse-verify", ANSWER_SECONDS, topic) as found:
                return found.log(settled=True)
        except KafkaError as error:
            raise self._unreachable(error) from None

    def bounds(self, topic: str) -> dict[int, Bounds]:
        """Return the bounds of every partition of a topic.

        :raises OperatorError: the topic does not exist or Kafka does not answer.
        """
        log = self._log(topic)
        return {number: Bounds(start, log.ends[number]) for number, start in sorted(log.starts.items())}

    def topic_id(self, topic: str) -> uuid.UUID:
        """Return the topic's id, which changes when the topic is re-created.

        :raises OperatorError: the topic does not exist or Kafka does not answer.
        """
        return uuid.UUID(self._log(topic).topic_id)

    def offsets_at(self, topic: str, stamps_ms: Mapping[int, int]) -> dict[int, int]:
        """Return for each partition the offset of its first record that arrived at an instant or later.

        :param stamps_ms: the instants in milliseconds since the epoch. Where there is no such record, the offset after
            the last one is returned.
        :raises OperatorError: Kafka does not answer.
        """
        ends = self.bounds(topic)
        asked = {TopicPartition(topic, number): max(stamp, 0) for number, stamp in stamps_ms.items()}
        try:
            found = self._consumer.offsets_for_times(asked)
        except KafkaError as error:
            raise self._unreachable(error) from None
        return {
            each.partition: ends[each.partition].end if at is None else min(at.offset, ends[each.partition].end)
            for each, at in found.items()
        }

    def read(
        self,
        topic: str,
        spans: Mapping[int, Bounds],
        progress: Callable[[int], None] | None = None,
        excluded: Mapping[int, Sequence[Bounds]] | None = None,
    ) -> Iterator[Record]:
        """Yield the records of each span, those of a partition in offset order.

        Offsets without a record (transaction markers, aborted records) are skipped.

        :param spans: for each partition the first offset and the one after the last.
        :param progress: called now and then with the number of records so far.
        :param excluded: for each partition offsets that are passed over, since they cannot be read.
        :raises OperatorError: Kafka stopped answering, or the log's beginning moved past a span's.
        """
        for letter in self.read_with_headers(topic, spans, progress, excluded):
            yield letter.record

    def read_with_headers(
        self,
        topic: str,
        spans: Mapping[int, Bounds],
        progress: Callable[[int], None] | None = None,
        excluded: Mapping[int, Sequence[Bounds]] | None = None,
    ) -> Iterator[Letter]:
        """Yield the records of each span like :meth:`read`, with their headers."""
        open_spans = {TopicPartition(topic, number): span for number, span in spans.items() if span.start < span.end}
        count = 0
        self._excluded = excluded or {}
        try:
            self._consumer.assign(list(open_spans))
            for partition, span in open_spans.items():
                self._consumer.seek(partition, span.start)
            positions = {partition: span.start for partition, span in open_spans.items()}
            moved = time.monotonic()
            while open_spans:
                for partition, fetched in self._poll(open_spans, positions).items():
                    passed = self._excluded.get(partition.partition, ())
                    wanted = [
                        each
                        for each in fetched
                        if each.offset < open_spans[partition].end
                        and not any(first <= each.offset < end for first, end in passed)
                    ]
                    count += len(wanted)
                    yield from map(_letter, wanted)
                if progress is not None:
                    progress(count)
                if self._advance(open_spans, positions):
                    moved = time.monotonic()
                elif time.monotonic() - moved > STALL_SECONDS:
                    partition = next(iter(open_spans))
                    raise OperatorError(
                        f"Kafka at {self._servers} sent nothing for {STALL_SECONDS:.0f} s, at partition "
                        f"{partition.partition} offset {positions[partition]} of {topic}: inv logs kafka"
                    )
        except (OffsetOutOfRangeError, NoOffsetForPartitionError):
            raise OperatorError(
                f"the beginning of {topic} was removed by its retention while it was being read: run it again"
            ) from None
        except KafkaError as error:
            raise self._unreachable(error) from None

    def _poll(
        self, open_spans: dict[TopicPartition, Bounds], positions: dict[TopicPartition, int]
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Fetch. A batch that cannot be unpacked is passed over where it is excluded."""
        try:
            fetched: dict[TopicPartition, list[ConsumerRecord]] = self._consumer.poll(timeout_ms=1000)
        except CannotUnpack:
            if self._advance(open_spans, positions):
                return {}
            raise
        return fetched

    def _advance(self, open_spans: dict[TopicPartition, Bounds], positions: dict[TopicPartition, int]) -> bool:
        """Record each partition's position, close the finished spans, and tell whether anything advanced.

        The position is queried, not derived from the records: it also passes offsets without a record.
        """
        moved = False
        for partition in list(open_spans):
            position = self._consumer.position(partition, timeout_ms=5_000)
            for first, end in self._excluded.get(partition.partition, ()):
                if position is not None and first <= position < end:
                    self._consumer.seek(partition, end)
                    position = end
            if position is not None and position != positions[partition]:
                positions[partition] = position
                moved = True
            if positions[partition] >= open_spans[partition].end:
                del open_spans[partition]
                # kafka-python 3.0 keeps fetched records of a paused partition, and may never read that partition again.
                self._consumer.assign(list(open_spans))
        return moved


def _letter(fetched: ConsumerRecord) -> Letter:
    return Letter(
        Record(fetched.partition, fetched.offset, fetched.timestamp, fetched.key, fetched.value), tuple(fetched.headers)
    )
