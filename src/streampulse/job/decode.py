"""From raw records to columns: rules 1 to 3 of the contract, which need nothing but the partition's clock.

Runs on the executors, one task for each Kafka partition of a batch. The common form of an event is read by a typed
decoder in a few microseconds, also with fields that the contract does not know; every record that is not plainly of
that form goes to :func:`streampulse.events.parse`, which decides. The quick way therefore never rejects a record and
accepts none that the slow one would not.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from streampulse import events
from streampulse.events import (
    ALLOWED_FUTURE_US,
    ALLOWED_LATENESS_US,
    INTERNAL_PREFIX,
    MAX_ID_LENGTH,
    MAX_INTEGER_DIGITS,
    MAX_MESSAGE_LEN,
)
from streampulse.job.rows import (
    CHAT_MESSAGE,
    DONATION,
    EVENT_ID_BYTES,
    FUTURE,
    INVALID,
    LATE,
    TYPE_CODES,
    DeadLetter,
    Rows,
    Slice,
)

# JSON after RFC 8259, without escapes: an object whose values nest once at most. Nothing is looked at twice.
_SPACE = rb"[ \t\r\n]*+"
_STRING = rb'"[^"\\\x00-\x1f]*+"'
_SCALAR = rb"(?:" + _STRING + rb"|-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]++)?+|true|false|null)"


def _separated(member: bytes) -> bytes:
    return rb"(?:" + _SPACE + member + _SPACE + rb"(?:," + _SPACE + member + _SPACE + rb")*+|" + _SPACE + rb")"


def _object_of(value: bytes) -> bytes:
    return rb"\{" + _separated(_STRING + _SPACE + rb":" + _SPACE + value) + rb"\}"


_INNER = rb"(?:" + _SCALAR + rb"|\[" + _separated(_SCALAR) + rb"\]|" + _object_of(_SCALAR) + rb")"
_SIMPLE_OBJECT = re.compile(_SPACE + _object_of(_INNER) + _SPACE)
_PLAIN_AMOUNT = re.compile(rb'(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,2})?|"[0-9]{1,9}(?:\.[0-9]{1,2})?"')
_PLAIN_LENGTH = re.compile(rb"0|[1-9][0-9]{0,9}")
_FORBIDDEN_IN_ID = re.compile("[\x00\ud800-\udfff]")
# Entries kept in the caches of key and minute texts; both are small in practice, and hostile input cannot grow them.
_CACHE_LIMIT = 200_000
_ABSENT = msgspec.Raw(b"")
#: Bytes of dead letters that one slice carries to the driver; further ones are only named.
CARRIED_BYTES: Final = 4 * 1024 * 1024


class _AnyEvent(msgspec.Struct, gc=False):
    """The common form with any other fields, of which the typed decoder only finds the end."""

    event_id: str
    ts: str
    event_type: str
    stream_id: str
    user_id: str
    # Numbers stay text until a strict pattern has looked at them.
    message_len: msgspec.Raw = _ABSENT
    amount_usd: msgspec.Raw = _ABSENT


class _PlainEvent(_AnyEvent, forbid_unknown_fields=True, gc=False):
    """The common form: the contract's own fields and no others."""


class Decoder:
    """Decodes one batch's records of any number of partitions, each in offset order.

    :param clocks: each partition's clock before the batch in microseconds since the epoch; absent: it has none yet.
    :param partitions: how many partitions the topic has.
    """

    def __init__(self, clocks: Mapping[int, int], partitions: int) -> None:
        self._clocks = dict(clocks)
        self._partitions = partitions
        self._decode = msgspec.json.Decoder(_PlainEvent).decode
        self._decode_any = msgspec.json.Decoder(_AnyEvent).decode
        # Whether the last plain record had fields that the contract does not know: the next one most likely has, too.
        self._others = False
        self._minutes: dict[str, int] = {}
        self._lengths: set[bytes] = set()
        self._keys: dict[tuple[int, bytes], str] = {}

    def slices(
        self, batches: Iterable[tuple[list[int], list[int], list[int], list[bytes | None], list[bytes | None]]]
    ) -> Iterator[Slice]:
        """Decode record batches and yield one slice for each run of records of one partition.

        :param batches: columns (partition, offset, arrival in microseconds, key, value) of equal length.
        """
        building: _SliceBuilder | None = None
        for partitions, offsets, arrivals, keys, values in batches:
            for record in zip(partitions, offsets, arrivals, keys, values, strict=True):
                partition = record[0]
                if building is None or building.partition != partition:
                    if building is not None:
                        yield self._finish(building)
                    building = _SliceBuilder(partition, record[1], self._clocks.get(partition))
                self._take(building, *record)
        if building is not None:
            yield self._finish(building)

    def _finish(self, building: _SliceBuilder) -> Slice:
        if building.clock is not None:
            self._clocks[building.partition] = building.clock
        return building.finish()

    def _take(
        self, into: _SliceBuilder, partition: int, offset: int, arrival_us: int, key: bytes | None, value: bytes | None
    ) -> None:
        into.records += 1
        into.next_offset = offset + 1
        if arrival_us > into.arrival_us:
            into.arrival_us = arrival_us
        found = self._plain(into, key, value)
        if found is None:
            try:
                event = events.parse(key, value, partition, self._partitions)
            except events.InvalidEvent as invalid:
                into.dead(offset, INVALID, invalid.detail, key, value)
                return
            found = (
                into.source_of(event.stream_id.encode(), event.stream_id),
                event.user_id,
                bytes.fromhex(event.event_id.replace("-", "")),
                event.ts_us,
                TYPE_CODES[event.event_type],
                event.amount_cents or 0,
            )
        source, user_id, event_id, ts_us, code, cents = found
        clock = into.clock
        if ts_us > arrival_us + ALLOWED_FUTURE_US:
            into.dead(offset, FUTURE, f"ts: {_seconds(ts_us - arrival_us)} s after its arrival", key, value)
        elif clock is not None and ts_us < clock - ALLOWED_LATENESS_US:
            into.dead(offset, LATE, f"ts: {_seconds(clock - ts_us)} s before the partition's clock", key, value)
        else:
            if (clock is None or ts_us > clock) and not source.internal:
                into.clock = ts_us
            into.add(offset, source, user_id, event_id, ts_us, code, cents)

    def _plain(
        self, into: _SliceBuilder, key: bytes | None, value: bytes | None
    ) -> tuple[_Source, str, bytes, int, int, int] | None:
        """Read a record of the common form, or return None: then the slow way has to decide."""
        event = self._typed(value)
        if event is None or key is None:
            return None
        code = TYPE_CODES.get(event.event_type)
        event_id = _plain_event_id(event.event_id)
        ts_us = self._plain_ts(event.ts)
        if code is None or event_id is None or ts_us is None:
            return None
        cents = self._plain_numbers(event, code)
        source = into.sources.get(key) or self._source_of(into, key)
        if cents is None or source is None or source.stream_id != event.stream_id:
            return None
        user_id = event.user_id
        if user_id not in source.viewers and not _is_plain_user(user_id):
            return None
        return source, user_id, event_id, ts_us, code, cents

    def _typed(self, value: bytes | None) -> _AnyEvent | None:
        """Read a value that is simple JSON with the contract's fields in their types, or return None."""
        if value is None or len(value) > MAX_INTEGER_DIGITS:
            return None
        if not self._others and _is_flat(value):
            try:
                return self._decode(value)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass
        self._others = _SIMPLE_OBJECT.fullmatch(value) is not None and _is_utf8(value)
        if self._others:
            try:
                return self._decode_any(value)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self._others = False
        return None

    def _plain_numbers(self, event: _AnyEvent, code: int) -> int | None:
        """Return the donation in cents (0 for other types), or None when a number is not of the plainest form."""
        amount, length = event.amount_usd, event.message_len
        if (amount is _ABSENT) is (code == DONATION):
            return None
        if length is _ABSENT:
            if code == CHAT_MESSAGE:
                return None
        else:
            text = bytes(length)
            if text not in self._lengths:
                if _PLAIN_LENGTH.fullmatch(text) is None or int(text) > MAX_MESSAGE_LEN:
                    return None
                if len(self._lengths) < _CACHE_LIMIT:
                    self._lengths.add(text)
        if amount is _ABSENT:
            return 0
        text = bytes(amount)
        return None if _PLAIN_AMOUNT.fullmatch(text) is None else _plain_cents(text.strip(b'"'))

    def _plain_ts(self, text: str) -> int | None:
        # YYYY-MM-DDTHH:MM is looked up; :SS.ffffffZ is read: most events of a batch fall into the same few minutes.
        rest = text[16:]
        length = len(rest)
        if length < 4 or length > 11 or length == 5 or rest[0] != ":" or rest[-1] != "Z" or not rest.isascii():
            return None
        if length > 4 and rest[3] != ".":
            return None
        digits = rest[1:3] + rest[4:-1]
        if not digits.isdigit():
            return None
        within = int(digits.ljust(8, "0"))
        if within >= 60_000_000:
            return None
        minute = text[:16]
        start = self._minutes.get(minute)
        if start is None:
            try:
                start = events.parse_ts(minute + ":00Z")
            except events.InvalidEvent:
                return None
            if len(self._minutes) >= _CACHE_LIMIT:
                self._minutes.clear()
            self._minutes[minute] = start
        return start + within

    def _source_of(self, into: _SliceBuilder, key: bytes) -> _Source | None:
        """Return the stream whose records carry this key in the slice's partition, None where there is none."""
        stream_id = self._keys.get((into.partition, key))
        if stream_id is None:
            try:
                stream_id = key.decode("utf-8")
            except UnicodeDecodeError:
                return None
            if not 1 <= len(stream_id) <= MAX_ID_LENGTH or "\x00" in stream_id:
                return None
            if events.partition_of(key, self._partitions) != into.partition:
                return None
            if len(self._keys) >= _CACHE_LIMIT:
                self._keys.clear()
            self._keys[into.partition, key] = stream_id
        return into.source_of(key, stream_id)


class _Source:
    """A stream of a slice, and its viewers there: their indexes in the rows."""

    __slots__ = ("index", "internal", "stream_id", "viewers")

    def __init__(self, stream_id: str) -> None:
        self.stream_id = stream_id
        self.internal = stream_id.startswith(INTERNAL_PREFIX)
        # Index of the stream in the rows, None while it has none there.
        self.index: int | None = None
        self.viewers: dict[str, int] = {}


class _SliceBuilder:
    """Collects one partition's events and dead letters."""

    __slots__ = (
        "_carried",
        "_dead",
        "_first",
        "_rows",
        "arrival_us",
        "clock",
        "next_offset",
        "partition",
        "records",
        "sources",
    )

    def __init__(self, partition: int, first_offset: int, clock: int | None) -> None:
        self.partition = partition
        self.clock = clock
        self.next_offset = first_offset
        self.records = 0
        self.arrival_us = 0
        # The streams of the slice by the key of their records.
        self.sources: dict[bytes, _Source] = {}
        self._first = first_offset
        self._carried = 0
        self._rows = Rows(partition)
        self._dead: list[DeadLetter] = []

    def source_of(self, key: bytes, stream_id: str) -> _Source:
        source = self.sources.get(key)
        if source is None:
            source = self.sources[key] = _Source(stream_id)
        return source

    def dead(self, offset: int, reason: str, detail: str, key: bytes | None, value: bytes | None) -> None:
        self._carried += len(key or b"") + len(value or b"")
        if self._carried <= CARRIED_BYTES:
            self._dead.append(DeadLetter(self.partition, offset, reason, detail, key, value))
        else:
            self._dead.append(DeadLetter(self.partition, offset, reason, detail, None, None, carried=False))

    def add(
        self, offset: int, source: _Source, user_id: str, event_id: bytes, ts_us: int, code: int, cents: int
    ) -> None:
        rows = self._rows
        viewer = source.viewers.get(user_id)
        if viewer is None:
            if source.index is None:
                source.index = len(rows.streams)
                rows.streams.append(source.stream_id)
            viewer = source.viewers[user_id] = len(rows.viewers)
            rows.viewers.append((source.index, user_id))
        rows.offset.append(offset)
        rows.ts_us.append(ts_us)
        rows.viewer.append(viewer)
        rows.code.append(code)
        rows.cents.append(cents)
        rows.event_ids += event_id

    def finish(self) -> Slice:
        return Slice(
            self.partition,
            self.records,
            self._first,
            self.next_offset,
            self.arrival_us,
            self.clock,
            self._rows,
            self._dead,
        )


def _is_flat(value: bytes) -> bool:
    """Tell whether a value, not too long, can hold none of what the typed decoder does not look at.

    It passes over the earlier ones of a repeated name unread, so they must not be able to nest, to hold an integer of
    too many digits or bytes that are not UTF-8; and no escape may hide a lone surrogate.
    """
    return b"\\" not in value and b"[" not in value and value.count(b"{") == 1 and _is_utf8(value)


def _is_utf8(value: bytes) -> bool:
    if value.isascii():
        return True
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _plain_event_id(text: str) -> bytes | None:
    """Return a UUID of 36 characters as its 16 bytes, None where it is none."""
    if len(text) != 36 or not text[8] == text[13] == text[18] == text[23] == "-":
        return None
    try:
        # Anything but 32 digits between those four hyphens is an error or, as white space may be left out, too short.
        event_id = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        return None
    return event_id if len(event_id) == EVENT_ID_BYTES else None


def _is_plain_user(user_id: str) -> bool:
    if not 1 <= len(user_id) <= MAX_ID_LENGTH or "\x00" in user_id:
        return False
    return user_id.isascii() or _FORBIDDEN_IN_ID.search(user_id) is None


def _plain_cents(text: bytes) -> int:
    whole, _, fraction = text.partition(b".")
    return int(whole) * 100 + int(fraction.ljust(2, b"0"))


def _seconds(span_us: int) -> str:
    return f"{span_us / 1_000_000:.3f}"


_modules_are_frozen = False


def _freeze_modules() -> None:
    """Take what is imported by now out of the garbage collector's sight, once for each worker process.

    Spark's Python workers run a full collection after every task. With pandas and pyarrow loaded that was a third of
    a worker's time at 300 events/s; what is imported never becomes garbage.
    """
    global _modules_are_frozen
    if not _modules_are_frozen:
        _modules_are_frozen = True
        gc.freeze()


class ArrowDecoder:
    """What ``DataFrame.mapInArrow`` calls on an executor: Kafka rows in, one encoded :class:`Slice` a row out."""

    def __init__(self, clocks: Mapping[int, int], partitions: int) -> None:
        self._clocks = dict(clocks)
        self._partitions = partitions

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Decode the Arrow batches of one task.

        :param batches: record batches with the columns key, value, partition, offset, timestamp.
        :returns: record batches of the one binary column ``slice``.
        """
        import pyarrow as pa

        def columns() -> Iterator[tuple[list[int], list[int], list[int], list[bytes | None], list[bytes | None]]]:
            for batch in batches:
                yield (
                    batch.column("partition").to_pylist(),
                    batch.column("offset").to_pylist(),
                    batch.column("timestamp").cast(pa.int64()).to_pylist(),
                    batch.column("key").to_pylist(),
                    batch.column("value").to_pylist(),
                )

        _freeze_modules()
        for piece in Decoder(self._clocks, self._partitions).slices(columns()):
            yield pa.RecordBatch.from_arrays([pa.array([piece.encode()], type=pa.binary())], names=["slice"])
