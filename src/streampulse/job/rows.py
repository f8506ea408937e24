"""What an executor hands the driver: one Kafka partition's slice of a batch, events in columns, and dead letters."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from streampulse.events import EVENT_TYPES, is_internal
from streampulse.job.positions import LastRecord

#: Length of an ``event_id`` as bytes. The order of the bytes is the order of the lower-case text.
EVENT_ID_BYTES: Final = 16

STREAM_START, STREAM_STOP, VIEWER_JOIN, VIEWER_LEAVE, CHAT_MESSAGE, DONATION = range(len(EVENT_TYPES))
TYPE_CODES: Final = {name: code for code, name in enumerate(EVENT_TYPES)}

INVALID: Final = "invalid"
FUTURE: Final = "future"
LATE: Final = "late"
#: Why a record may not count: all that there are.
REASONS: Final = (INVALID, FUTURE, LATE)


#: Name of the header of a record in which its producer may name itself. Dead letters repeat it.
PRODUCER_HEADER: Final = "client.id"
#: What a letter takes without its key and value, about.
LETTER_BYTES: Final = 256


class DeadLetter(NamedTuple):
    """A record that does not count, with why (one of :data:`REASONS`) and where it stood.

    ``producer`` is the record's header ``client.id``, cut; empty where the record has none.
    """

    partition: int
    offset: int
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    producer: str = ""

    def size(self) -> int:
        """Return about how many bytes the letter takes, its headers included."""
        return LETTER_BYTES + len(self.key or b"") + len(self.value or b"")


class DueLetter(NamedTuple):
    """A dead letter that is due by a recount, with its number and the id of the recount."""

    number: int
    recount: str
    letter: DeadLetter


class Exclusion(NamedTuple):
    """Records that do not count although the log holds them, and why (one of :data:`REASONS`)."""

    partition: int
    first_offset: int
    last_offset: int
    reason: str


class Suspect(NamedTuple):
    """An event that has to be judged before it or a later record is read, and its time in microseconds."""

    offset: int
    ts_us: int


class Limit(NamedTuple):
    """The time above which an event is suspect, in microseconds.

    ``is_future``: the present clocks agree, so that a suspect event gets the reason ``future``.
    """

    suspect_from_us: int
    is_future: bool


NO_LIMIT: Final = Limit(2**63, False)


@dataclass(slots=True)
class Rows:
    """Events of one partition in offset order, in columns of equal length.

    ``streams`` and ``viewers`` are dictionaries: the columns hold indexes into them, so that the driver looks each
    distinct one up once for a batch and not once for an event.

    - ``offset``: the record's offset; ``ts_us``: event time in microseconds since the epoch;
    - ``viewer``: index into ``viewers``, whose entries are (index into ``streams``, user id);
    - ``code``: the event type's code; ``event_ids``: 16 bytes for each row; ``cents``: the donation, else 0;
    - ``own_clocks``: not a column, but the newest time of each of our own streams (``__``) that a record moved to it
      which is not among the rows, in microseconds since the epoch.
    """

    partition: int
    streams: list[str] = field(default_factory=list)
    viewers: list[tuple[int, str]] = field(default_factory=list)
    offset: array[int] = field(default_factory=lambda: array("q"))
    ts_us: array[int] = field(default_factory=lambda: array("q"))
    viewer: array[int] = field(default_factory=lambda: array("i"))
    code: array[int] = field(default_factory=lambda: array("b"))
    cents: array[int] = field(default_factory=lambda: array("q"))
    event_ids: bytearray = field(default_factory=bytearray)
    own_clocks: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offset)

    def event_id(self, row: int) -> bytes:
        """Return the event id of a row as 16 bytes."""
        return bytes(self.event_ids[row * EVENT_ID_BYTES : (row + 1) * EVENT_ID_BYTES])

    def without(self, refused: list[int], own_clocks: dict[str, int]) -> Rows:
        """Return the rows without some of them (indexes in ascending order), which moved these clocks nonetheless."""
        kept = Rows(self.partition, self.streams, self.viewers, own_clocks=own_clocks)
        first = 0
        for row in [*refused, len(self)]:
            kept.offset += self.offset[first:row]
            kept.ts_us += self.ts_us[first:row]
            kept.viewer += self.viewer[first:row]
            kept.code += self.code[first:row]
            kept.cents += self.cents[first:row]
            kept.event_ids += self.event_ids[first * EVENT_ID_BYTES : row * EVENT_ID_BYTES]
            first = row + 1
        return kept

    def newest_ordinary_us(self) -> int | None:
        """Return the newest time in the rows of other than our own streams, None where there are none."""
        if not any(is_internal(stream_id) for stream_id in self.streams):
            return max(self.ts_us, default=None)
        ordinary = [not is_internal(self.streams[stream]) for stream, _ in self.viewers]
        return max((ts for ts, viewer in zip(self.ts_us, self.viewer, strict=True) if ordinary[viewer]), default=None)

    def encode(self) -> bytes:
        """Return the columns as MessagePack, for :meth:`decode` on the same machine architecture."""
        return _ENCODER.encode(
            (
                self.partition,
                self.streams,
                self.viewers,
                self.offset.tobytes(),
                self.ts_us.tobytes(),
                self.viewer.tobytes(),
                self.code.tobytes(),
                self.cents.tobytes(),
                bytes(self.event_ids),
                self.own_clocks,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Rows:
        """Read what :meth:`encode` wrote."""
        partition, streams, viewers, offset, ts_us, viewer, code, cents, event_ids, own_clocks = _DECODER.decode(data)
        return cls(
            partition,
            streams,
            viewers,
            array("q", offset),
            array("q", ts_us),
            array("i", viewer),
            array("b", code),
            array("q", cents),
            bytearray(event_ids),
            own_clocks,
        )


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(
    tuple[int, list[str], list[tuple[int, str]], bytes, bytes, bytes, bytes, bytes, bytes, dict[str, int]]
)


@dataclass(slots=True)
class Slice:
    """One partition's slice of a batch as an executor decoded it.

    ``records`` counts all records; ``first_offset`` and ``next_offset`` are where reading began and where it goes on;
    ``clock_us`` is the partition's clock after the slice, None while no ordinary event has passed; ``last`` is the last
    record before ``next_offset``, None where records before it are excluded: reading does not go back to them;
    ``suspect`` is the event at ``next_offset``, where the slice ends because of it.
    """

    partition: int
    records: int
    first_offset: int
    next_offset: int
    newest_arrival_us: int
    clock_us: int | None
    rows: Rows
    dead_letters: list[DeadLetter]
    last: LastRecord | None = None
    excluded: list[Exclusion] = field(default_factory=list)
    suspect: Suspect | None = None

    def exclude(self, next_offset: int, detail: str) -> None:
        """Exclude the records up to, but excluding, an offset: their letters have neither key nor value."""
        first, self.next_offset, self.last = self.next_offset, next_offset, None
        self.records += next_offset - first
        self.excluded.append(Exclusion(self.partition, first, next_offset - 1, INVALID))
        self.dead_letters += [
            DeadLetter(self.partition, offset, INVALID, detail, None, None) for offset in range(first, next_offset)
        ]

    def encode(self) -> bytes:
        """Return the slice as bytes, for :meth:`decode`."""
        return _SLICE_ENCODER.encode(
            (
                self.partition,
                self.records,
                self.first_offset,
                self.next_offset,
                self.newest_arrival_us,
                self.clock_us,
                self.rows.encode(),
                [tuple(letter) for letter in self.dead_letters],
                self.last,
                self.excluded,
                self.suspect,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Slice:
        """Read what :meth:`encode` wrote."""
        partition, records, first, following, arrival, clock, rows, letters, last, excluded, suspect = (
            _SLICE_DECODER.decode(data)
        )
        return cls(
            partition,
            records,
            first,
            following,
            arrival,
            clock,
            Rows.decode(rows),
            [DeadLetter(*letter) for letter in letters],
            last,
            excluded,
            suspect,
        )


_SLICE_ENCODER = msgspec.msgpack.Encoder()
_LETTER = tuple[int, int, str, str, bytes | None, bytes | None, str]
_SLICE_DECODER = msgspec.msgpack.Decoder(
    tuple[int, int, int, int, int, int | None, bytes, list[_LETTER], LastRecord | None, list[Exclusion], Suspect | None]
)
