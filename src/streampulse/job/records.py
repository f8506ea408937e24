"""What runs on the executors: one task for each Kafka partition of a batch, from the broker to an encoded slice."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import methodcaller
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streampulse.events import MAX_ID_LENGTH
from streampulse.job.damaged import Batch, examine
from streampulse.job.decode.slices import Decoder, Raw, SuspectFound
from streampulse.job.ends import CONSUMER, PATIENCE_SECONDS, LogLost
from streampulse.job.positions import LastRecord, Position, fingerprint, is_same
from streampulse.job.ranges import Range
from streampulse.job.rows import NO_LIMIT, PRODUCER_HEADER, Exclusion, Limit, Slice, Suspect

_LOOK_SECONDS: Final = 1.0
_NOT_HELD: Final = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION)
#: Codes of a batch whose checksum is wrong, or that cannot be unpacked.
DAMAGED: Final = (KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION)
_NEW_LEADER_SECONDS: Final = 10.0
# After this time without a message the batch at the position is examined.
_SILENT_SECONDS: Final = 5.0
# After this time without a message another client is taken, and again whenever the silence lasts twice as long: a large
# record has ever more time to arrive.
_FRESH_SECONDS: Final = 1.5
#: Messages that are taken from the client at a time.
_CHUNK: Final = 2_000
#: Bytes of keys and values that are decoded at a time: a slice is that much larger than its bounds at most.
_PIECE_BYTES: Final = 1024 * 1024
#: Asks a message for its headers. Where a name is not UTF-8, the client returns a list and leaves its error behind.
#: A call that CPython has specialized does not look for that error, and an innocent later call raises it.
_HEADERS: Final = methodcaller("headers")
_OPTIONS: Final = {
    **CONSUMER,
    "enable.auto.offset.store": False,
    # A position that the log does not hold is an error. The job decides at its next start where to read on.
    "auto.offset.reset": "error",
    # Says that the position has reached the log's end, which may be transaction markers or removed records.
    "enable.partition.eof": True,
    "check.crcs": True,
    # A range is only read when its records are there. With the defaults the broker holds the last answer back for
    # 500 ms, and the client waits for 1 s before it fetches on.
    "fetch.wait.max.ms": 10,
    "fetch.queue.backoff.ms": 2,
    # Messages fetched ahead beyond the end of a range are thrown away. With the default of 100,000 a task took half as
    # much processor time again.
    "queued.min.messages": 5_000,
    "queued.max.messages.kbytes": 16 * 1024,
}
# One for each worker process: a task takes over the connections of the one before.
_consumers: dict[str, Consumer] = {}
# One entry for each time that no broker was reachable.
_outages: list[KafkaError] = []


def consumer(client: Mapping[str, str]) -> Consumer:
    """Return this process's consumer for a cluster.

    :param client: librdkafka's options.
    """
    where = client["bootstrap.servers"]
    if where not in _consumers:
        _consumers[where] = Consumer({**client, **_OPTIONS, "error_cb": _note})
    return _consumers[where]


def _fresh_consumer(client: Mapping[str, str]) -> Consumer:
    """Replace this process's consumer for a cluster.

    After a wrong checksum librdkafka reads on in the wrong place, and it stays with a leader that is silent.
    """
    _consumers.pop(client["bootstrap.servers"]).close()
    return consumer(client)


def _note(error: KafkaError) -> None:
    if error.code() == KafkaError._ALL_BROKERS_DOWN:
        _outages.append(error)


def read_slice(
    client: Mapping[str, str],
    topic: str,
    part: Range,
    position: Position,
    partitions: int,
    limit: Limit = NO_LIMIT,
    excluded: Sequence[Exclusion] = (),
) -> Slice:
    """Read and decode a partition's records from a position on.

    The slice ends with the range, when its bytes are used up, before a suspect event, where a span was lost, after a
    damaged batch, or before a record of another leader epoch: each slice begins with a look at the record before its
    position, so the log may change between slices and not within one.

    :param client: librdkafka's options; :param part: its end and its bound count; reading begins at the position.
    :param partitions: number of partitions of the topic.
    :param limit: when an event is suspect; :param excluded: the partition's excluded records.
    :raises LogLost: the log does not hold the position.
    :raises KafkaException: Kafka does not hand out a record for a minute.
    """
    if position.until is not None:
        part = replace(part, end=min(part.end, position.until))
    suspect: Suspect | None = None
    while True:
        _outages.clear()
        records = Records(client, topic, part, position)
        decoder = Decoder(
            part.partition, partitions, position.clock_us, part.letter_bytes, limit, excluded, records.producer_of
        )
        try:
            piece = decoder.decode(records.pieces(decoder.is_full))
        except SuspectFound as found:
            # Rare: what is before it is read again, which says where the slice ends.
            suspect = found.suspect
            part = replace(part, end=suspect.offset)
            continue
        damaged = records.damaged
        if damaged is not None and position.offset < damaged.first < records.next_offset:
            # librdkafka has handed out the first records of the batch. None of them counts.
            part = replace(part, end=damaged.first)
            continue
        # A broker that was away may have come back with a shorter log and the same epoch.
        if not _outages:
            break
    if damaged is not None and damaged.first <= position.offset:
        piece, records.next_offset = Decoder(part.partition, partitions, position.clock_us).decode(()), position.offset
    piece.first_offset, piece.next_offset, piece.last = position.offset, records.next_offset, records.last
    if damaged is not None:
        piece.exclude(min(damaged.end, part.end), "value: cannot be unpacked")
    if suspect is not None and piece.next_offset == suspect.offset:
        piece.suspect = suspect
    return piece


def last_record(message: Any) -> LastRecord:
    """Return what identifies the position after a message."""
    return LastRecord(
        message.offset(), message.leader_epoch(), fingerprint(message.timestamp()[1], message.key(), message.value())
    )


class Records:
    """The committed records of one partition and one leader epoch, from a position to the end of a range."""

    def __init__(self, client: Mapping[str, str], topic: str, part: Range, position: Position) -> None:
        self._client = client
        self._reader = consumer(client)
        self._topic = topic
        self._range = part
        self._bytes = 0
        self._deadline = 0.0
        # What to say when the time is over.
        self._error = KafkaError(KafkaError._TIMED_OUT)
        #: The offset up to which the log was read. It may lie beyond the last record: after transaction markers, or
        #: records of aborted transactions, or records that compaction removed.
        self.next_offset = position.offset
        #: The last record before it.
        self.last = position.last
        self._epoch: int | None = None
        self._ended = False
        # The record that must be there before any other.
        self._expected = position.last
        self._messages: deque[Any] = deque()
        # The messages that were yielded last, by offset.
        self._yielded: dict[int, Any] = {}
        # How often the batch at the position was reported as damaged, and when it is examined without a report.
        self._reports = 0
        self._examine_at = math.inf
        # When the last message came, and when another client is taken.
        self._silent_since = self._fresh_at = math.inf
        #: The damaged batch that ends the slice, None where there is none.
        self.damaged: Batch | None = None

    def pieces(self, is_full: Callable[[], bool]) -> Iterator[Raw]:
        """Yield the records.

        :param is_full: tells after each piece whether the slice can take no more.
        :raises LogLost: the log does not hold the offset.
        :raises KafkaException: Kafka does not hand out a record for a minute.
        """
        end = self._range.end
        self._assign(self.next_offset if self._expected is None else self._expected.offset)
        try:
            self._go_on()
            while not self._ended and self.next_offset < end and self._bytes < self._range.max_bytes and not is_full():
                self._messages = self._messages or self._next_messages()
                piece = self._taken(self._messages)
                now = time.monotonic()
                if piece.offsets:
                    self._go_on()
                    yield piece
                elif now > self._deadline:
                    raise KafkaException(self._error)
                elif now > self._examine_at and (self._reports or not _outages):
                    self._examine_at = math.inf
                    self._examine()
                elif now > self._fresh_at:
                    self._fresh_at = now + (now - self._silent_since)
                    self._take_fresh_consumer()
        finally:
            self._reader.unassign()

    def producer_of(self, offset: int) -> str:
        """Return the header ``client.id`` of a record that was yielded last; empty where it has none.

        Only a refused record is asked: to unpack headers takes longer than to decode an event.
        """
        try:
            headers = _HEADERS(self._yielded[offset]) or ()
        except (SystemError, UnicodeDecodeError):
            # A header's name is not UTF-8.
            return ""
        for name, value in headers:
            if name == PRODUCER_HEADER and value:
                return str(value[:MAX_ID_LENGTH].decode("utf-8", errors="replace"))
        return ""

    def _go_on(self) -> None:
        now = time.monotonic()
        self._deadline, self._examine_at, self._reports = now + PATIENCE_SECONDS, now + _SILENT_SECONDS, 0
        self._silent_since, self._fresh_at = now, now + _FRESH_SECONDS

    def _examine(self) -> None:
        """Look at the batch at the position with another client, and end the slice if it is damaged.

        Nothing is excluded for one finding: the consumer's report is confirmed by that client, its silence by a second
        look, and a report that the client does not confirm by a fresh consumer's.
        """
        offset = self.next_offset if self._expected is None else self._expected.offset
        look = partial(examine, self._client, self._topic, self._range.partition, offset)
        found = look()
        confirmed = found is not None and (
            self._reports > 1 or (found.is_damaged and (self._reports or look() == found))
        )
        damaged = found if confirmed else None
        if damaged is not None and self._expected is None:
            self.damaged, self._ended = damaged, True
            self._reader = _fresh_consumer(self._client)
        elif damaged is not None or self._reports:
            # The batch of the record before the position may be damaged since.
            self._expected = self._expected if damaged is None else None
            self._take_fresh_consumer()

    def _take_fresh_consumer(self) -> None:
        self._reader = _fresh_consumer(self._client)
        self._assign(self.next_offset if self._expected is None else self._expected.offset)

    def _assign(self, offset: int) -> None:
        self._messages = deque()
        self._reader.assign([TopicPartition(self._topic, self._range.partition, offset)])

    def _next_messages(self) -> deque[Any]:
        """Wait for a message and return it with those that are there already."""
        first = self._reader.poll(_LOOK_SECONDS)
        if first is None:
            return deque()
        # Without a wait: the client would otherwise wait until it has as many as it was asked for.
        return deque([first, *self._reader.consume(_CHUNK, 0)])

    def _taken(self, messages: deque[Any]) -> Raw:
        offsets: list[int] = []
        arrivals: list[int] = []
        keys: list[bytes | None] = []
        values: list[bytes | None] = []
        end, enough = self._range.end, min(self._range.max_bytes, self._bytes + _PIECE_BYTES)
        last = None
        self._yielded = {}
        # Epochs ascend: where the last record has the epoch of the slice, all have.
        newest = next((each.leader_epoch() for each in reversed(messages) if each.error() is None), None)
        while messages and self._bytes < enough and not self._ended:
            message = messages.popleft()
            offset = message.offset()
            if message.error() is not None:
                self._look_at(message.error(), offset)
                continue
            if self._expected is not None or offset < self.next_offset:
                self._compare(message)
                continue
            if offset >= end:
                self.next_offset = end
                break
            if newest != self._epoch:
                self._epoch = message.leader_epoch() if self._epoch is None else self._epoch
                if message.leader_epoch() != self._epoch:
                    self._ended = True
                    break
            key, value = message.key(), message.value()
            self._yielded[offset] = message
            offsets.append(offset)
            arrivals.append(message.timestamp()[1] * 1000)
            keys.append(key)
            values.append(value)
            self._bytes += len(key or b"") + len(value or b"")
            self.next_offset = offset + 1
            last = message
        if last is not None:
            self.last = last_record(last)
        return Raw(offsets, arrivals, keys, values)

    def _compare(self, message: Any) -> None:
        """Compare a record before the position with the one that was there when the position was reached.

        :raises LogLost: it is another one.
        """
        expected, self._expected = self._expected, None
        if expected is None or not is_same(last_record(message), expected):
            raise LogLost(f"partition {self._range.partition} has another record at offset {message.offset()}")

    def _look_at(self, error: KafkaError, offset: int) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            # The log may have grown since. Where it ends before the range does, it was cut off; a new leader of the
            # partition may need a moment.
            if self._expected is not None and offset <= self._expected.offset:
                raise LogLost(f"partition {self._range.partition} ends at offset {offset}")
            self.next_offset = max(self.next_offset, min(offset, self._range.end))
            self._deadline = min(self._deadline, time.monotonic() + _NEW_LEADER_SECONDS)
            self._error = KafkaError(KafkaError._PARTITION_EOF, f"no record at offset {self.next_offset}")
        elif code in _NOT_HELD and self._expected is not None:
            # Retention may have removed the record before the position.
            self._expected = None
            self._assign(self.next_offset)
        elif code in _NOT_HELD:
            raise LogLost(f"partition {self._range.partition} does not hold offset {self.next_offset}")
        elif code in DAMAGED:
            # What follows it is not to be trusted.
            self._messages.clear()
            self._error = error
            if self._expected is None:
                self.next_offset = max(self.next_offset, min(offset, self._range.end))
            self._reports, self._examine_at = self._reports + 1, 0.0
        else:
            self._error = error
