"""Where a partition's log begins to differ from what the job read of it."""

import bisect
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streampulse import events
from streampulse.core.kafka import Log
from streampulse.job.ends import CONSUMER, PATIENCE_SECONDS
from streampulse.job.positions import LastRecord, is_same
from streampulse.job.records import DAMAGED, last_record

_LOOK_SECONDS: Final = 1.0


class Difference(NamedTuple):
    """The first offset at which the log differs from what was read, and the last record before it."""

    offset: int
    last: LastRecord | None


class RecordReader:
    """Reads records of a topic for the driver, as a ``read_committed`` consumer.

    :param client: librdkafka's options.
    :param ends: where partitions end at least. A broker whose log ends before is none to believe.
    """

    def __init__(self, client: Mapping[str, str], topic: str, ends: Mapping[int, int] = MappingProxyType({})) -> None:
        self._consumer = Consumer({**client, **CONSUMER, "enable.partition.eof": True, "auto.offset.reset": "error"})
        self._topic = topic
        self._ends = ends

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()

    def messages(self, partition: int, first: int) -> Iterator[Any]:
        """Yield the records from an offset to the log's end, or to a batch that cannot be unpacked.

        :raises KafkaException: the log does not hold the offset, or Kafka does not answer for a minute.
        """
        self._consumer.assign([TopicPartition(self._topic, partition, first)])
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while True:
                message = self._consumer.poll(_LOOK_SECONDS)
                error = KafkaError(KafkaError._TIMED_OUT) if message is None else message.error()
                if error is None:
                    deadline = time.monotonic() + PATIENCE_SECONDS
                    yield message
                    continue
                ended = error.code() == KafkaError._PARTITION_EOF
                offset = 0 if message is None else message.offset() or 0
                if error.code() in DAMAGED or (ended and offset >= self._ends.get(partition, 0)):
                    return
                if time.monotonic() > deadline or not (message is None or ended or error.retriable()):
                    raise KafkaException(error)
        finally:
            self._consumer.unassign()


class Read(NamedTuple):
    """What is known of what was read of a partition, to compare the log with.

    ``reached`` is the offset up to which it was read, ``last`` the record before it, ``clock_us`` the partition's
    clock there. ``earlier`` returns the records before earlier positions, the newest first. ``accepted`` returns, from
    an offset on, the ids of accepted events (16 bytes) by their offsets, at least of all that are not late by now.
    ``until_ms`` is when the newest position was committed: a record with a later stamp was not read.
    """

    reached: int
    last: LastRecord | None
    clock_us: int | None
    earlier: Callable[[], Iterable[LastRecord]]
    accepted: Callable[[int], Mapping[int, bytes]]
    until_ms: float


def first_difference(log: RecordReader, number: int, topic: Log, read: Read) -> Difference | None:
    """Compare a partition's log with what was read of it, and return None where it does not differ.

    Where an epoch, a stamp or an event that the state knows tells, the difference is exact. Otherwise it is the offset
    after the last record that is known to be the same: what is then read again are duplicates, or late.

    :param number: the partition.
    :raises KafkaException: Kafka does not answer.
    """
    start, end, last = topic.starts[number], topic.ends[number], read.last
    until = min(end, read.reached)
    if last is None:
        return None if read.reached <= end else Difference(end, None)
    known = _newest_known(log, number, (start, end), itertools.chain([last], read.earlier()))
    first = max(start, 0 if known is None else known.offset + 1)
    if known == last:
        # A record between the last one and the position was not there when the position was reached.
        unread = next(_between(log, number, first, until), None)
        if unread is not None:
            return Difference(unread.offset(), last)
        return None if read.reached <= end else Difference(end, last)
    accepted = read.accepted(first)
    # Without a position that fits, what the state does not know is not looked at.
    begin = max(first, min(accepted, default=first)) if known is None else first
    ids, partitions, before = set(accepted.values()), len(topic.starts), None
    for message in _between(log, number, begin, until):
        offset, epoch = message.offset(), message.leader_epoch() or 0
        if epoch > (epoch if last.epoch is None else last.epoch) or message.timestamp()[1] > read.until_ms:
            return Difference(offset, known if before is None else last_record(before))
        event_id, counted = _event_id(message, partitions, read.clock_us)
        if accepted[offset] != event_id if offset in accepted else counted and event_id not in ids:
            return Difference(first, known)
        before = message
        if offset in accepted:
            first, known = offset + 1, last_record(message)
    if end < read.reached:
        return Difference(end, known if before is None else last_record(before))
    return Difference(first, known)


def _newest_known(
    log: RecordReader, number: int, bounds: tuple[int, int], records: Iterable[LastRecord]
) -> LastRecord | None:
    """Return the newest of the records that the log holds; None where none is known to be held.

    A log that holds a record holds those before it. So with each step the look goes twice as far back, and then halves
    the last step.
    """
    start, end = bounds

    def held(record: LastRecord) -> bool:
        found = next(log.messages(number, record.offset), None) if start <= record.offset < end else None
        return found is not None and is_same(last_record(found), record)

    passed: list[LastRecord] = []
    for count, record in enumerate(records):
        if count == 0 and record.offset < start:
            # Retention removed the last record that was read. Nothing speaks against it.
            return record
        passed.append(record)
        if count & (count - 1):
            continue
        if held(record):
            return passed[bisect.bisect_left(passed, True, key=held)]
        passed.clear()
    return None


def _between(log: RecordReader, number: int, first: int, until: int) -> Iterator[Any]:
    """Return the records from an offset up to, but excluding, another. Kafka is not asked where there can be none."""
    if first >= until:
        return iter(())
    return itertools.takewhile(lambda message: message.offset() < until, log.messages(number, first))


def _event_id(message: Any, partitions: int, clock_us: int | None) -> tuple[bytes | None, bool]:
    """Return an event's id, and whether it was surely accepted or a duplicate if it was read."""
    try:
        event = events.parse(message.key(), message.value(), message.partition(), partitions)
    except events.InvalidEvent:
        return None, False
    arrival_us = message.timestamp()[1] * 1000
    oldest = (clock_us or 0) - events.ALLOWED_LATENESS_US
    counted = oldest <= event.ts_us <= arrival_us + events.ALLOWED_FUTURE_US and not events.is_internal(event.stream_id)
    return bytes.fromhex(event.event_id.replace("-", "")), counted
