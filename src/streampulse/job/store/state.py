"""The durable form of the working state: a snapshot, the accepted events of each batch since, and the position.

Each of the three tables names the format of its rows. Format 1 is that of rows without a named format. Format 2 has
room for what identifies a position besides its offset; its payloads are otherwise those of format 1. Format 3 is format
2, of one of several shards.
"""

import datetime
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import psycopg2
import psycopg2.extensions

from streampulse.core.errors import OperatorError
from streampulse.job.counting.changes import WINDOW_US
from streampulse.job.counting.engine import Engine
from streampulse.job.counting.state import Snapshot, restore, take_snapshot
from streampulse.job.positions import LastRecord
from streampulse.job.rows import Rows
from streampulse.job.shards import ALONE, OLDEST_FORMAT, SHARD_FORMAT, Shard

#: A snapshot is written after this many accepted events at the earliest. Its fixed cost, a few milliseconds of the
#: batch, is then a small part of the work that those events were, and a start replays them in under a second.
SNAPSHOT_EVERY_EVENTS: Final = 50_000
#: And when the deltas since the last snapshot have this share of its size. A million present viewers are a snapshot of
#: tens of MB; after every 50,000 events it would be ten times what the events themselves take. With a half, snapshots
#: add at most two bytes to each byte of deltas, and a start reads at most half as much again as the snapshot alone.
SNAPSHOT_DELTA_SHARE: Final = 0.5
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(slots=True)
class StoredDelta:
    """A stored delta: which rows it still guards, by partition its newest event's time in microseconds."""

    seq: int
    newest_us: dict[int, int]


@dataclass(slots=True)
class Written:
    """What a batch's transaction wrote of the state: events and bytes of its delta, and its snapshot if it has one."""

    delta: StoredDelta | None
    events: int
    delta_bytes: int
    snapshot_bytes: int = 0
    folds: dict[int, int | None] | None = None


@dataclass(slots=True)
class LedgerRow:
    """The position of the newest batch, and the event clock that it used, in microseconds since the epoch.

    ``last`` has the record before each offset, where it is known.
    """

    offsets: dict[int, int]
    clocks: dict[int, int]
    topic_id: str | None = None
    event_clock_us: int | None = None
    last: dict[int, LastRecord] = field(default_factory=dict)
    #: When it was committed, by PostgreSQL's clock, in milliseconds since the epoch.
    committed_at_ms: float = math.inf
    #: Its number, 0 where nothing was ever committed.
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """A row of ``lost_spans``: offsets of a partition whose records the log no longer has, or never gave out."""

    topic_id: str
    partition: int
    kind: str
    first_offset: int
    next_offset: int
    epoch: int | None
    clock_us: int | None


def snapshot_is_due(events: int, delta_bytes: int, snapshot_bytes: int) -> bool:
    """Tell whether a snapshot is due.

    :param events: accepted events since the last snapshot; :param delta_bytes: the size of their deltas;
    :param snapshot_bytes: the size of the last snapshot, 0 where there is none.
    """
    return events >= SNAPSHOT_EVERY_EVENTS and delta_bytes >= SNAPSHOT_DELTA_SHARE * snapshot_bytes


def check_format(table: str, found: int) -> None:
    """Check that a table's rows have a format that this release reads.

    :raises OperatorError: they have not.
    """
    if not OLDEST_FORMAT <= found <= SHARD_FORMAT:
        raise OperatorError(
            f"{table} has state of format {found}, and this release reads formats {OLDEST_FORMAT} to {SHARD_FORMAT}:"
            " install the release that wrote it, or the one after that (inv up)"
        )


class StateTables:
    """Reads and writes the state's tables, and knows what they hold.

    :param viewer_timeout_us: see :class:`~streampulse.job.counting.engine.Engine`.
    :param shard: whose state it is.
    """

    def __init__(self, viewer_timeout_us: int, shard: Shard = ALONE) -> None:
        self._timeout = viewer_timeout_us
        self._shard = shard
        self._deltas: list[StoredDelta] = []
        self._events_since = self._bytes_since = self._snapshot_bytes = 0

    def load(self, cursor: psycopg2.extensions.cursor) -> tuple[Engine, LedgerRow]:
        """Rebuild the working state as of the newest ledger row.

        :returns: the engine, and that row; without a topic where nothing was ever committed.
        :raises OperatorError: a table has a format that this release does not read.
        """
        shard = self._shard.number
        newest = newest_row(cursor, shard)
        # One payload has the state of all partitions of the shard.
        cursor.execute(
            "SELECT seq, format, payload FROM job_state_snapshot WHERE shard = %s ORDER BY seq DESC LIMIT 1", (shard,)
        )
        snapshots = cursor.fetchall()
        cursor.execute("SELECT seq, format, payload FROM job_state_delta WHERE shard = %s ORDER BY seq", (shard,))
        return self.rebuild(newest, snapshots[0] if snapshots else None, cursor), newest

    def rebuild(
        self,
        newest: LedgerRow,
        saved: tuple[int, int, bytes | memoryview] | None,
        stored: Iterable[tuple[int, int, bytes | memoryview]],
    ) -> Engine:
        """Rebuild the working state from the rows of the tables.

        :param saved: seq, format and payload of the snapshot; :param stored: those of the deltas, by seq.
        :raises OperatorError: one has a format that this release does not read.
        """
        covered, snapshot = 0, Snapshot(None, {}, [])
        self._snapshot_bytes = self._events_since = self._bytes_since = 0
        if saved is not None:
            covered, found, payload = saved
            check_format("job_state_snapshot", found)
            snapshot = msgspec.msgpack.decode(zlib.decompress(payload), type=Snapshot)
            self._snapshot_bytes = len(payload)
        self._deltas = []
        before, since = list[Rows](), list[Rows]()
        for seq, found, payload in stored:
            check_format("job_state_delta", found)
            rows = [Rows.decode(piece) for piece in msgspec.msgpack.decode(zlib.decompress(payload), type=list[bytes])]
            self._deltas.append(StoredDelta(seq, _newest(rows)))
            if seq <= covered:
                before += rows
            else:
                since += rows
                self._events_since += _weight(rows)
                self._bytes_since += len(payload)
        return restore(self._timeout, snapshot, before, since, newest.clocks, newest.offsets, newest.event_clock_us)

    def write(
        self,
        cursor: psycopg2.extensions.cursor,
        seq: int,
        engine: Engine,
        accepted: Sequence[Rows],
        *,
        snapshot_now: bool = False,
    ) -> Written:
        """Write a batch's delta, and a snapshot where one is due; this removes the deltas that it covers.

        :param seq: the batch's ledger row; :param accepted: its accepted events.
        :param snapshot_now: write a snapshot in any case.
        :returns: what :meth:`committed` has to be told once the transaction is committed.
        """
        kept = [rows for rows in accepted if len(rows) or rows.own_clocks]
        written = Written(None, _weight(kept), 0)
        if kept:
            payload = pack([rows.encode() for rows in kept])
            written.delta, written.delta_bytes = StoredDelta(seq, _newest(kept)), len(payload)
            cursor.execute(
                "INSERT INTO job_state_delta (seq, format, payload, shard) VALUES (%s, %s, %s, %s)",
                (seq, self._shard.format, psycopg2.Binary(payload), self._shard.number),
            )
        due = snapshot_now or snapshot_is_due(
            self._events_since + written.events, self._bytes_since + written.delta_bytes, self._snapshot_bytes
        )
        if due:
            snapshot = take_snapshot(engine)
            payload = pack(snapshot)
            written.snapshot_bytes = len(payload)
            written.folds = {partition.number: partition.fold for partition in snapshot.partitions}
            unneeded = [delta.seq for delta in self._deltas if not _guards(delta, written.folds)]
            cursor.execute("DELETE FROM job_state_snapshot WHERE shard = %s", (self._shard.number,))
            cursor.execute(
                "INSERT INTO job_state_snapshot (seq, format, payload, shard) VALUES (%s, %s, %s, %s)",
                (seq, self._shard.format, psycopg2.Binary(payload), self._shard.number),
            )
            cursor.execute("DELETE FROM job_state_delta WHERE seq = ANY(%s)", (unneeded,))
        return written

    def committed(self, written: Written) -> None:
        """Take note of what a transaction wrote, once it is committed."""
        if written.delta is not None:
            self._deltas.append(written.delta)
        self._events_since += written.events
        self._bytes_since += written.delta_bytes
        if written.folds is not None:
            self._deltas = [delta for delta in self._deltas if _guards(delta, written.folds)]
            self._events_since = self._bytes_since = 0
            self._snapshot_bytes = written.snapshot_bytes


def newest_row(cursor: psycopg2.extensions.cursor, shard: int = 0) -> LedgerRow:
    """Return a shard's newest row of the ledger, without a topic where nothing was ever committed.

    :raises OperatorError: it has a format that this release does not read.
    """
    cursor.execute(
        "SELECT format, offsets, clocks, topic_id, event_clock, positions,"
        " extract(epoch FROM committed_at)::float8 * 1000, seq FROM batch_ledger WHERE shard = %s"
        " ORDER BY seq DESC LIMIT 1",
        (shard,),
    )
    for found, offsets, clocks, topic_id, event_clock, positions, committed_at, seq in cursor:
        check_format("batch_ledger", found)
        return LedgerRow(
            {int(number): offset for number, offset in offsets.items()},
            {int(number): clock for number, clock in clocks.items()},
            topic_id,
            None if event_clock is None else (event_clock - _EPOCH) // datetime.timedelta(microseconds=1),
            {int(number): last_record(entry) for number, entry in (positions or {}).items()},
            committed_at,
            seq,
        )
    return LedgerRow({}, {})


def last_record(entry: Mapping[str, Any]) -> LastRecord:
    """Return the record that an entry of the column ``positions`` names."""
    return LastRecord(entry["record"], entry["epoch"], entry["fingerprint"])


def accepted_ids(cursor: psycopg2.extensions.cursor, partition: int, first: int) -> Iterator[tuple[int, bytes]]:
    """Yield offsets and ids of a partition's accepted events that the deltas hold, from an offset on.

    They are in the order of commits. Where the log was lost, an offset may come twice.
    """
    cursor.execute("SELECT payload FROM job_state_delta ORDER BY seq")
    for (payload,) in cursor:
        for piece in msgspec.msgpack.decode(zlib.decompress(payload), type=list[bytes]):
            rows = Rows.decode(piece)
            if rows.partition == partition:
                yield from ((at, rows.event_id(row)) for row, at in enumerate(rows.offset) if at >= first)


def position_columns(
    engine: Engine, last: Mapping[int, LastRecord], generations: Mapping[int, int]
) -> tuple[str, str, datetime.datetime | None, str]:
    """Return the columns offsets, clocks, event_clock and positions of a batch's ledger row."""
    clock = engine.event_clock_us
    positions = {
        number: {
            "record": record.offset,
            "epoch": record.epoch,
            "generation": generations.get(number, 0),
            "fingerprint": record.fingerprint,
        }
        for number, record in last.items()
    }
    return (
        json.dumps(engine.next_offsets()),
        json.dumps(engine.partition_clocks()),
        None if clock is None else _EPOCH + datetime.timedelta(microseconds=clock),
        json.dumps(positions),
    )


def pack(value: object) -> bytes:
    """Return a payload."""
    # Level 1: three quarters of what level 6 saves, at a fifth of its time.
    return zlib.compress(msgspec.msgpack.encode(value), 1)


def _weight(pieces: Sequence[Rows]) -> int:
    """Return how much the pieces bring a snapshot nearer: their events, and clocks moved by other records."""
    return sum(len(rows) + len(rows.own_clocks) for rows in pieces)


def _newest(pieces: Sequence[Rows]) -> dict[int, int]:
    # Without internal streams: a snapshot has their unsettled events.
    newest: dict[int, int] = {}
    for rows in pieces:
        newest_us = rows.newest_ordinary_us()
        if newest_us is not None:
            newest[rows.partition] = max(newest.get(rows.partition, 0), newest_us)
    return newest


def _guards(delta: StoredDelta, folds: Mapping[int, int | None]) -> bool:
    """Tell whether a delta holds events that the snapshot with these folds has not settled."""
    for partition, newest_us in delta.newest_us.items():
        fold = folds.get(partition)
        if fold is None or newest_us >= fold * WINDOW_US:
            return True
    return False
