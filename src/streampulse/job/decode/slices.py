"""From raw records to columns: rules 1 to 3 of the contract, which need nothing but the partition's clock."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from streampulse import events
from streampulse.events import ALLOWED_FUTURE_US, ALLOWED_LATENESS_US, INTERNAL_PREFIX, MAX_ID_LENGTH
from streampulse.job.decode.plain import CACHE_LIMIT, PlainReader, is_plain_user, plain_event_id
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


class SuspectFound(Exception):  # noqa: N818 - a finding
    """A record has to be judged before it or a later one is read."""

    def __init__(self, suspect: Suspect) -> None:
        super().__init__(suspect)
        self.suspect = suspect


class Decoder:
    """Decodes one batch's records of any number of partitions, each in offset order.

    :param clocks: each partition's clock before the batch in microseconds since the epoch; absent: it has none yet.
    :param partitions: how many partitions the topic has.
    :param letter_bytes: bytes of keys and values in dead letters that are enough, see :meth:`is_full`.
    :param limit: when an event is suspect.
    :param excluded: exclusions of the partition that is decoded.
    :param producer_of: returns the producer that a record names, by the record's offset.
    """

    def __init__(
        self,
        clocks: Mapping[int, int],
        partitions: int,
        letter_bytes: int = 0,
        limit: Limit = NO_LIMIT,
        excluded: Sequence[Exclusion] = (),
        producer_of: Callable[[int], str] = lambda _: "",
    ) -> None:
        self._producer_of = producer_of
        self._suspect_from_us, self._is_future = limit
        self._excluded = excluded
        self._clocks = dict(clocks)
        self._partitions = partitions
        self._reader = PlainReader()
        self._keys: dict[tuple[int, bytes], str] = {}
        self._enough_letter_bytes = letter_bytes
        self._letter_bytes = 0

    def is_full(self) -> bool:
        """Tell whether the dead letters have more bytes than enough."""
        return self._letter_bytes > self._enough_letter_bytes

    def slices(
        self, batches: Iterable[tuple[list[int], list[int], list[int], list[bytes | None], list[bytes | None]]]
    ) -> Iterator[Slice]:
        """Decode record batches and yield one slice for each run of records of one partition.

        :param batches: columns (partition, offset, arrival in microseconds, key, value) of equal length.
        :raises SuspectFound: an event is suspect and the present clocks are not known to agree.
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

    def _finish(self, building: "_SliceBuilder") -> Slice:
        if building.clock is not None:
            self._clocks[building.partition] = building.clock
        return building.finish()

    def _take(
        self,
        into: "_SliceBuilder",
        partition: int,
        offset: int,
        arrival_us: int,
        key: bytes | None,
        value: bytes | None,
    ) -> None:
        into.records += 1
        into.next_offset = offset + 1
        if arrival_us > into.arrival_us:
            into.arrival_us = arrival_us
        if self._excluded and self._refuse_excluded(into, offset, key, value):
            return
        found = self._read_plain(into, key, value)
        if found is None:
            try:
                event = events.parse(key, value, partition, self._partitions)
            except events.InvalidEvent as invalid:
                self._refuse(into, offset, INVALID, invalid.detail, key, value)
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
            self._refuse(into, offset, FUTURE, f"ts: {_seconds(ts_us - arrival_us)} s after its arrival", key, value)
        elif ts_us > self._suspect_from_us:
            if not self._is_future:
                raise SuspectFound(Suspect(offset, ts_us))
            ahead = _seconds(ts_us - self._suspect_from_us + ALLOWED_FUTURE_US)
            self._refuse(into, offset, FUTURE, f"ts: {ahead} s ahead of the present clocks", key, value)
            into.excluded.append(Exclusion(partition, offset, offset, FUTURE))
        elif clock is not None and ts_us < clock - ALLOWED_LATENESS_US:
            self._refuse(
                into, offset, LATE, f"ts: {_seconds(clock - ts_us)} s before the partition's clock", key, value
            )
        else:
            if (clock is None or ts_us > clock) and not source.internal:
                into.clock = ts_us
            into.add(offset, source, user_id, event_id, ts_us, code, cents)

    def _refuse_excluded(self, into: "_SliceBuilder", offset: int, key: bytes | None, value: bytes | None) -> bool:
        """Refuse a record if it is excluded, and tell whether it is. What is no event is not from the future."""
        reasons = [each.reason for each in self._excluded if each.first_offset <= offset <= each.last_offset]
        if INVALID in reasons:
            self._refuse(into, offset, INVALID, "value: cannot be read", None, None)
        elif FUTURE in reasons and events.is_valid(key, value, into.partition, self._partitions):
            self._refuse(into, offset, FUTURE, "ts: excluded", key, value)
        else:
            return False
        return True

    def _refuse(
        self, into: "_SliceBuilder", offset: int, reason: str, detail: str, key: bytes | None, value: bytes | None
    ) -> None:
        # Cut on the executor: the driver never gets a large record whole.
        key, value = events.letter_bytes(key, value)
        into.letters.append(DeadLetter(into.partition, offset, reason, detail, key, value, self._producer_of(offset)))
        self._letter_bytes += into.letters[-1].size()

    def _read_plain(
        self, into: "_SliceBuilder", key: bytes | None, value: bytes | None
    ) -> "tuple[_Source, str, bytes, int, int, int] | None":
        """Read a record of the common form, or return None: then the slow way has to decide."""
        event = self._reader.typed(value)
        if event is None or key is None:
            return None
        code = TYPE_CODES.get(event.event_type)
        event_id = plain_event_id(event.event_id)
        ts_us = self._reader.ts_us(event.ts)
        if code is None or event_id is None or ts_us is None:
            return None
        cents = self._reader.cents(event, code)
        source = into.sources.get(key) or self._source_of(into, key)
        if cents is None or source is None or source.stream_id != event.stream_id:
            return None
        user_id = event.user_id
        if user_id not in source.viewers and not is_plain_user(user_id):
            return None
        return source, user_id, event_id, ts_us, code, cents

    def _source_of(self, into: "_SliceBuilder", key: bytes) -> "_Source | None":
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
            if len(self._keys) >= CACHE_LIMIT:
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
        "_first", "_rows", "arrival_us", "clock", "excluded", "letters", "next_offset", "partition", "records",
        "sources",
    )  # fmt: skip

    def __init__(self, partition: int, first_offset: int, clock: int | None) -> None:
        self.partition = partition
        self.clock = clock
        self.next_offset = first_offset
        self.records = 0
        self.arrival_us = 0
        # The streams of the slice by the key of their records.
        self.sources: dict[bytes, _Source] = {}
        self._first = first_offset
        self._rows = Rows(partition)
        self.letters: list[DeadLetter] = []
        self.excluded: list[Exclusion] = []

    def source_of(self, key: bytes, stream_id: str) -> _Source:
        source = self.sources.get(key)
        if source is None:
            source = self.sources[key] = _Source(stream_id)
        return source

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
            self.letters,
            excluded=self.excluded,
        )


def _seconds(span_us: int) -> str:
    return f"{span_us / 1_000_000:.3f}"
