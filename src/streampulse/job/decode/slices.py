"""From raw records to columns: rules 1 to 3 of the contract, which need nothing but the partition's clock."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise, starmap
from typing import Final, NamedTuple

from streampulse import events
from streampulse.events import ALLOWED_FUTURE_US, ALLOWED_LATENESS_US, INTERNAL_PREFIX, MAX_ID_LENGTH
from streampulse.job.decode.plain import Events, may_be_plain, read
from streampulse.job.rows import (
    FUTURE,
    INVALID,
    LATE,
    NO_LIMIT,
    TYPE_CODES,
    DeadLetter,
    Exclusion,
    Limit,
    Rows,
    Slice,
    Suspect,
)

#: Records that are decoded at a time. If one is in doubt, they are decoded in parts, and those of its part alone.
_CHUNK: Final = 256
_FEW: Final = 16


class SuspectFound(Exception):  # noqa: N818 - a finding
    """A record has to be judged before it or a later one is read."""

    def __init__(self, suspect: Suspect) -> None:
        super().__init__(suspect)
        self.suspect = suspect


class Raw(NamedTuple):
    """Records of one partition in offset order, in columns of equal length. Arrivals are in microseconds."""

    offsets: list[int]
    arrivals_us: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]

    def part(self, rows: slice) -> "Raw":
        """Return some of the records."""
        return Raw(self.offsets[rows], self.arrivals_us[rows], self.keys[rows], self.values[rows])

    def first(self) -> tuple[int, int, bytes | None, bytes | None]:
        """Return offset, arrival, key and value of the first record."""
        return self.offsets[0], self.arrivals_us[0], self.keys[0], self.values[0]


class Decoder:
    """Decodes the records of one slice.

    :param partition: its partition; :param partitions: how many the topic has.
    :param clock_us: the partition's clock before the slice in microseconds since the epoch; None: it has none yet.
    :param letter_bytes: bytes of keys and values in dead letters that are enough, see :meth:`is_full`.
    :param limit: when an event is suspect.
    :param excluded: exclusions of the partition.
    :param producer_of: returns the producer that a record names, by the record's offset.
    """

    def __init__(
        self,
        partition: int,
        partitions: int,
        clock_us: int | None,
        letter_bytes: int = 0,
        limit: Limit = NO_LIMIT,
        excluded: Sequence[Exclusion] = (),
        producer_of: Callable[[int], str] = lambda _: "",
    ) -> None:
        self._producer_of = producer_of
        self._suspect_from_us, self._is_future = limit
        self._excluded = excluded
        self._partitions = partitions
        self._slice = Slice(partition, 0, 0, 0, 0, clock_us, Rows(partition), [])
        self._sources = _Sources(self._slice.rows, partitions)
        self._enough_letter_bytes = letter_bytes
        self._letter_bytes = 0

    def is_full(self) -> bool:
        """Tell whether the dead letters have more bytes than enough."""
        return self._letter_bytes > self._enough_letter_bytes

    def decode(self, pieces: Iterable[Raw]) -> Slice:
        """Decode records, in pieces of one at least, and return the slice.

        :raises SuspectFound: an event is suspect and the present clocks are not known to agree.
        """
        made, step = self._slice, 1 if self._excluded else _CHUNK
        for piece in pieces:
            if not made.records:
                made.first_offset = piece.offsets[0]
            made.records += len(piece.offsets)
            made.next_offset = piece.offsets[-1] + 1
            made.newest_arrival_us = max(made.newest_arrival_us, *piece.arrivals_us)
            for first in range(0, len(piece.offsets), step):
                self._take(piece.part(slice(first, first + step)))
        return made

    def _take(self, records: Raw) -> None:
        """Take a chunk, in parts if one of its records is not of the common form."""
        if self._excluded and self._refuse_excluded(*records.first()):
            return
        found = read(records.values)
        sources = None if found is None else self._sources.of(records.keys, found.stream_ids)
        if found is not None and sources is not None:
            self._judge(records, sources, found)
        elif len(records.offsets) > 1:
            odd = [row for row, value in enumerate(records.values) if not may_be_plain(value)]
            for rows in _parts(len(records.offsets), odd):
                self._take(records.part(rows))
        else:
            self._take_exactly(records)

    def _take_exactly(self, records: Raw) -> None:
        offset, _, key, value = records.first()
        try:
            event = events.parse(key, value, self._slice.partition, self._partitions)
        except events.InvalidEvent as invalid:
            self._refuse(offset, INVALID, invalid.detail, key, value)
            return
        event_id, code = bytes.fromhex(event.event_id.replace("-", "")), TYPE_CODES[event.event_type]
        cents = [event.amount_cents or 0]
        found = Events([event.stream_id], [event.user_id], event_id, [event.ts_us], [code], cents)
        self._judge(records, [self._sources[key]], found)

    def _judge(self, records: Raw, sources: "Sequence[_Source]", found: Events) -> None:
        """Take valid events. Where one may be refused, or is of our own streams, judge them one by one."""
        made, count = self._slice, len(sources)
        newest, clock = max(found.ts_us), made.clock_us
        clock = newest if clock is None or newest > clock else clock
        if count == 1:
            if not self._is_in_time(records, newest):
                return
            clock = made.clock_us if sources[0].internal else clock
        elif (
            newest > min(self._suspect_from_us, min(records.arrivals_us) + ALLOWED_FUTURE_US)
            or min(found.ts_us) < clock - ALLOWED_LATENESS_US
            or any(source.internal for source in sources)
        ):
            for part in _parts(count):
                self._judge(records.part(part), sources[part], found.part(part))
            return
        made.clock_us = clock
        rows = made.rows
        rows.viewer.extend(array("i", [source[user] for source, user in zip(sources, found.user_ids, strict=True)]))
        rows.offset.extend(array("q", records.offsets))
        rows.ts_us.extend(array("q", found.ts_us))
        rows.code.extend(array("b", found.codes))
        rows.cents.extend(array("q", found.cents))
        rows.event_ids += found.event_ids

    def _is_in_time(self, records: Raw, ts_us: int) -> bool:
        """Refuse an event that is late or from the future, and tell whether it is neither."""
        offset, arrival_us, key, value = records.first()
        clock = self._slice.clock_us
        if ts_us > arrival_us + ALLOWED_FUTURE_US:
            self._refuse(offset, FUTURE, f"ts: {_seconds(ts_us - arrival_us)} s after its arrival", key, value)
        elif ts_us > self._suspect_from_us:
            if not self._is_future:
                raise SuspectFound(Suspect(offset, ts_us))
            ahead = _seconds(ts_us - self._suspect_from_us + ALLOWED_FUTURE_US)
            self._refuse(offset, FUTURE, f"ts: {ahead} s ahead of the present clocks", key, value)
            self._slice.excluded.append(Exclusion(self._slice.partition, offset, offset, FUTURE))
        elif clock is not None and ts_us < clock - ALLOWED_LATENESS_US:
            self._refuse(offset, LATE, f"ts: {_seconds(clock - ts_us)} s before the partition's clock", key, value)
        else:
            return True
        return False

    def _refuse_excluded(self, offset: int, _: int, key: bytes | None, value: bytes | None) -> bool:
        """Refuse a record if it is excluded, and tell whether it is. What is no event is not from the future."""
        reasons = [each.reason for each in self._excluded if each.first_offset <= offset <= each.last_offset]
        if INVALID in reasons:
            self._refuse(offset, INVALID, "value: cannot be read", None, None)
        elif FUTURE in reasons and events.is_valid(key, value, self._slice.partition, self._partitions):
            self._refuse(offset, FUTURE, "ts: excluded", key, value)
        else:
            return False
        return True

    def _refuse(self, offset: int, reason: str, detail: str, key: bytes | None, value: bytes | None) -> None:
        # Cut on the executor: the driver never gets a large record whole.
        key, value = events.letter_bytes(key, value)
        letter = DeadLetter(self._slice.partition, offset, reason, detail, key, value, self._producer_of(offset))
        self._slice.dead_letters.append(letter)
        self._letter_bytes += letter.size()


class _Source(dict[str, int]):
    """A stream of a slice: the indexes of its viewers in the rows. A new viewer, or stream, is entered there."""

    def __init__(self, stream_id: str, rows: Rows) -> None:
        super().__init__()
        self.stream_id = stream_id
        self.internal = stream_id.startswith(INTERNAL_PREFIX)
        self._rows = rows
        # Index of the stream in the rows, None while it has none there.
        self._index: int | None = None

    def __missing__(self, user_id: str) -> int:
        rows = self._rows
        if self._index is None:
            self._index = len(rows.streams)
            rows.streams.append(self.stream_id)
        index = self[user_id] = len(rows.viewers)
        rows.viewers.append((self._index, user_id))
        return index


class _Sources(dict[bytes | None, _Source]):
    """The streams of a slice by the key of their records. Other keys raise :class:`KeyError`."""

    def __init__(self, rows: Rows, partitions: int) -> None:
        super().__init__()
        self._rows, self._partitions = rows, partitions

    def of(self, keys: Sequence[bytes | None], stream_ids: Sequence[str]) -> list[_Source] | None:
        """Return the streams of records, or None if one is not in its partition or has not its stream's id as key."""
        try:
            found = [self[key] for key in keys]
        except KeyError:
            return None
        return found if [source.stream_id for source in found] == list(stream_ids) else None

    def __missing__(self, key: bytes | None) -> _Source:
        try:
            stream_id = (key or b"").decode("utf-8")
        except UnicodeDecodeError:
            raise KeyError(key) from None
        if not 1 <= len(stream_id) <= MAX_ID_LENGTH or "\x00" in stream_id:
            raise KeyError(key)
        if key is None or events.partition_of(key, self._partitions) != self._rows.partition:
            raise KeyError(key)
        source = self[key] = _Source(stream_id, self._rows)
        return source


def _parts(count: int, odd: Sequence[int] = ()) -> Iterator[slice]:
    """Yield the rows of the parts of a chunk in doubt: a few, and where they are in doubt, each alone.

    :param odd: rows that are surely no part of a chunk; where there are some, the parts are the runs between them.
    """
    runs = sorted({0, *odd, *(row + 1 for row in odd), count})
    step = _FEW if count > _FEW else 1
    return starmap(slice, pairwise(runs if odd else [*range(0, count, step), count]))


def _seconds(span_us: int) -> str:
    return f"{span_us / 1_000_000:.3f}"
