"""Differences by row, column and dead letter."""

import datetime
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

from streampulse.events import letter_bytes, partition_of
from streampulse.oracle.decide import DEAD_LETTER_REASONS, INVALID, LATE, Decision, Record
from streampulse.oracle.reader import Bounds, Letter
from streampulse.oracle.tables import MINUTE_US, MinuteRow, StateRow, Tables

HEADERS: Final = ("reason", "detail", "topic", "partition", "offset")
#: Letters of releases before 0.3 do not have it.
GENERATION: Final = "generation"
#: Columns that depend only on the window's own events; the others also depend on earlier presence.
_COUNT_COLUMNS: Final = tuple(name for name in MinuteRow._fields if name != "active_viewers")
_EMPTY: Final = MinuteRow(*(0,) * len(MinuteRow._fields))
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Horizon(NamedTuple):
    """How far back the tables can be checked.

    ``edge_us``: rows that begin before it may have left the tables. ``certain_from``: for each partition with an
    incomplete log, the first window with certain counts, None if there is none. ``partitions``: the number of
    partitions of the topic. ``complete_before_us``: for partitions whose only gap are lost spans, the time before which
    no record is missing.
    """

    edge_us: int
    certain_from: Mapping[int, int | None]
    partitions: int
    complete_before_us: Mapping[int, int]

    def partition(self, stream_id: str) -> int:
        """Return the partition of a stream's events."""
        return partition_of(stream_id.encode(), self.partitions)


def instant(ts_us: int) -> str:
    """Return an instant as text, UTC."""
    try:
        return (_EPOCH + datetime.timedelta(microseconds=ts_us)).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return f"{ts_us} us since 1970"


def _shown(column: str, value: int) -> str:
    if column == "donations_cents":
        return f"{Decimal(value) / 100:.2f}"
    return instant(value) if column.endswith("_us") else str(value)


def _named(column: str) -> str:
    return {"donations_cents": "donations_usd", "updated_at_us": "updated_at"}.get(column, column)


def _columns(
    where: str, columns: Iterable[str], expected: MinuteRow | StateRow, found: MinuteRow | StateRow
) -> Iterator[str]:
    for column in columns:
        ours, theirs = getattr(expected, column), getattr(found, column)
        if ours != theirs:
            yield f"{where} {_named(column)}: {_shown(column, theirs)} in the table, {_shown(column, ours)} by the log"


def minute_differences(
    expected: Mapping[tuple[int, str], MinuteRow], found: Mapping[tuple[int, str], MinuteRow], horizon: Horizon
) -> Iterator[str]:
    """Yield a sentence for each difference of ``stream_metrics_minute``, in the order of its key."""
    for key in sorted(expected.keys() | found.keys()):
        window, stream_id = key
        if window < horizon.edge_us:
            continue
        where = f"stream_metrics_minute {instant(window)} {stream_id!r}"
        ours, theirs = expected.get(key), found.get(key)
        partition = horizon.partition(stream_id)
        if partition in horizon.certain_from and window + MINUTE_US > horizon.complete_before_us.get(partition, 0):
            first = horizon.certain_from[partition]
            if first is not None and window >= first:
                yield from _columns(where, _COUNT_COLUMNS, ours or _EMPTY, theirs or _EMPTY)
        elif ours is None:
            yield f"{where}: the row should not be there"
        elif theirs is None:
            yield f"{where}: the row is missing"
        else:
            yield from _columns(where, MinuteRow._fields, ours, theirs)


def state_differences(expected: Tables, found: Mapping[str, StateRow], horizon: Horizon) -> Iterator[str]:
    """Yield a sentence for each difference of ``stream_state``, by stream."""
    for stream_id in sorted(expected.last_events.keys() | found.keys()):
        where = f"stream_state {stream_id!r}"
        if horizon.partition(stream_id) in horizon.certain_from:
            continue
        if stream_id not in expected.last_events:
            yield f"{where}: the row should not be there"
            continue
        ours, theirs = expected.states.get(stream_id), found.get(stream_id)
        if ours is None:  # older than the history: removed, or about to be
            continue
        if theirs is not None:
            yield from _columns(where, StateRow._fields, ours, theirs)
        elif ours.active_viewers or expected.last_events[stream_id] >= horizon.edge_us:
            yield f"{where}: the row is missing"


class ExpectedLetter(NamedTuple):
    """The expected dead letter of one record. The value is kept as its digest: records may be large."""

    reason: str
    field: str | None
    key: bytes | None
    value: bytes | None

    @classmethod
    def of(cls, record: Record, decision: Decision) -> "ExpectedLetter":
        """Return the expected dead letter of a record."""
        named = decision.detail.partition(":")[0] if decision.detail is not None else None
        key, value = letter_bytes(record.key, record.value)
        return cls(decision.outcome, named, key, digest(value))


def generation_at(lost: Iterable[int], offset: int) -> int:
    """Return the generation of the record that the log has at an offset: the number of spans that were lost before it.

    :param lost: the first offset of each lost span of the partition, in the order in which they were noted.
    """
    return max((number for number, first in enumerate(lost, 1) if first <= offset), default=0)


def digest(value: bytes | None) -> bytes | None:
    """Return a record value's digest; None stays None, distinct from the empty value."""
    return None if value is None else hashlib.sha256(value).digest()


@dataclass
class LetterCheck:
    """Compares the expected dead letters with the actual ones.

    ``expected``: by (partition, offset). ``uncertain``: records whose lateness is unknown, since the log's beginning is
    gone. ``spans``: the offsets that were read. ``first_stamps_ms``: if the topic was re-created, the arrival of each
    partition's first record; earlier letters are the previous topic's. ``lost``: the first offset of each lost span of
    a partition, in the order in which they were noted. ``letters_end``: letters before this offset of the topic may be
    overruled by a recount.
    """

    topic: str
    spans: Mapping[int, Bounds]
    expected: Mapping[tuple[int, int], ExpectedLetter]
    uncertain: frozenset[tuple[int, int]] = frozenset()
    first_stamps_ms: Mapping[int, int | None] | None = None
    lost: Mapping[int, Sequence[int]] = field(default_factory=dict)
    letters_end: int = 0
    seen: dict[tuple[int, int], int] = field(default_factory=dict)
    not_checked: int = 0
    overruled: int = 0

    def differences(self, letters: Iterable[Letter], log_is_whole: bool) -> Iterator[str]:
        """Yield a sentence for each difference.

        :param letters: every record of the dead-letter topic, up to its end.
        :param log_is_whole: the dead-letter topic still holds every letter ever sent.
        """
        for letter in letters:
            yield from self._check(letter)
        oldest: dict[int, int] = {}
        for partition, offset in self.seen:
            oldest[partition] = min(oldest.get(partition, offset), offset)
        for partition, offset in sorted(self.expected.keys() - self.seen.keys()):
            if log_is_whole or (partition in oldest and offset > oldest[partition]):
                reason = self.expected[partition, offset].reason
                yield f"dead letter of partition {partition} offset {offset}: missing, the record is {reason}"
            else:
                self.not_checked += 1

    def _check(self, letter: Letter) -> Iterator[str]:
        at = f"dead letter at offset {letter.record.offset} of the dead-letter topic"
        headers: dict[str, str] = {}
        for name in (*HEADERS, GENERATION):
            values = [value for each, value in letter.headers if each == name]
            if not values and name == GENERATION:
                values = [b"0"]
            if len(values) != 1:
                yield f"{at}: the header {name} is there {len(values)} times"
                return
            try:
                headers[name] = (values[0] or b"").decode()
            except UnicodeDecodeError:
                yield f"{at}: the header {name} is not UTF-8"
                return
        if headers["topic"] != self.topic:
            yield f"{at}: the header topic is {headers['topic']!r}, not {self.topic!r}"
            return
        try:
            source = int(headers["partition"]), int(headers["offset"])
            generation = int(headers[GENERATION])
        except ValueError:
            numbers = ", ".join(repr(headers[name]) for name in ("partition", "offset", GENERATION))
            yield f"{at}: the headers partition, offset and generation are {numbers}"
            return
        expected = generation_at(self.lost.get(source[0], ()), source[1])
        if generation == expected:
            yield from self._check_source(letter, source, headers)
        elif generation < expected:
            self.not_checked += 1  # of a record that was lost
        elif generation <= len(self.lost.get(source[0], ())):
            yield f"{at}: its generation is {generation}, that of the record is {expected}"

    def _check_source(self, letter: Letter, source: tuple[int, int], headers: Mapping[str, str]) -> Iterator[str]:
        partition, offset = source
        where = f"dead letter of partition {partition} offset {offset}"
        span = self.spans.get(partition)
        if span is None or offset < 0:
            yield f"{where}: there is no such record"
            return
        if offset >= span.end:
            return  # written by a batch after the compared ledger row
        if offset < span.start or self._of_an_earlier_topic(letter, partition):
            self.not_checked += 1
            return
        if source in self.seen:
            yield f"{where}: there twice, at offsets {self.seen[source]} and {letter.record.offset}"
            return
        self.seen[source] = letter.record.offset
        expected = self.expected.get(source)
        early = letter.record.offset < self.letters_end
        if early and headers["reason"] != (expected and expected.reason) and source not in self.uncertain:
            self.overruled += 1
        elif expected is None:
            if source not in self.uncertain or headers["reason"] != LATE:
                yield f"{where}: says {headers['reason']!r}, but the record is none of {sorted(DEAD_LETTER_REASONS)}"
        else:
            yield from _letter_differences(where, letter.record, headers, expected)

    def _of_an_earlier_topic(self, letter: Letter, partition: int) -> bool:
        if self.first_stamps_ms is None:
            return False
        first = self.first_stamps_ms.get(partition)
        return first is None or letter.record.stamp_ms < first


def _letter_differences(
    where: str, letter: Record, headers: Mapping[str, str], expected: ExpectedLetter
) -> Iterator[str]:
    if headers["reason"] != expected.reason:
        yield f"{where}: says {headers['reason']!r}, the record is {expected.reason}"
    elif expected.reason == INVALID and headers["detail"].partition(":")[0] != expected.field:
        yield f"{where}: its detail {headers['detail']!r} should begin with {expected.field}"
    if letter.key != expected.key:
        yield f"{where}: its key is not the record's"
    if digest(letter.value) != expected.value:
        yield f"{where}: its bytes are not the record's"
