"""Another number of shards: each takes over the state of its partitions from the last rows of those before.

All of it is one transaction, of one driver, that keeps all others out: no count is lost or doubled, whenever it ends.
"""

import json
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
import psycopg2
import psycopg2.extensions

from streampulse.core.errors import OperatorError
from streampulse.events import partition_of
from streampulse.job.counting.changes import WINDOW_US
from streampulse.job.counting.state import Snapshot, take_snapshot
from streampulse.job.rows import Rows
from streampulse.job.shards import Shard
from streampulse.job.store.commit import SWAP_KEY, copy, one, timestamp, write_rows
from streampulse.job.store.state import StateTables, newest_row, pack

_ENTER: Final = (
    "INSERT INTO batch_ledger (query_id, batch_id, shard, shards, topic_id, format, event_clock, offsets, clocks,"
    " positions) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING seq"
)
_MOVE_STREAMS: Final = (
    "UPDATE stream_presence AS p SET shard = n.shard FROM staged_shards AS n"
    " WHERE p.stream_id = n.stream_id AND p.shard <> n.shard"
)


def present_shards(cursor: psycopg2.extensions.cursor) -> int:
    """Return the number of drivers that the newest ledger row is of, 1 where nothing was ever committed."""
    cursor.execute("SELECT shards FROM batch_ledger ORDER BY seq DESC LIMIT 1")
    found = cursor.fetchone()
    return 1 if found is None else int(found[0])


def take_over(cursor: psycopg2.extensions.cursor, count: int, partitions: int, viewer_timeout_us: int) -> None:
    """Hand the state over to another number of shards, in the caller's transaction, which no recount is swapped into.

    The rows of all are extended to the newest event clock first, so that those of each new shard are.

    :param count: the new number; :param partitions: that of the topic.
    :raises OperatorError: the shards before have read different topics, or left another format of state.
    """
    # Between two statements a large state is decoded and encoded, for longer than a batch may take.
    cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", (SWAP_KEY,))
    old = present_shards(cursor)
    rows = [newest_row(cursor, number) for number in range(old)]
    topics = {row.topic_id for row in rows if row.topic_id is not None}
    if len(topics) > 1:
        raise OperatorError(
            f"the {old} shards before have read different topics of one name: set job_shards to {old} and start them"
            " once more (inv up), then change the number"
        )
    clock = max((row.event_clock_us for row in rows if row.event_clock_us is not None), default=None)
    snapshots: list[Snapshot] = []
    pieces: list[Rows] = []
    columns: dict[str, dict[str, Any]] = {"offsets": {}, "clocks": {}, "positions": {}}
    for number in range(old):
        engine, _ = StateTables(viewer_timeout_us, Shard(number, old)).load(cursor)
        if clock is not None:
            engine.clocks.move_event(clock)
        changes, _ = engine.apply([])
        write_rows(cursor, changes, number)
        # They are emptied with the transaction only.
        cursor.execute("TRUNCATE staged_rows, staged_clears, staged_presences")
        snapshots.append(take_snapshot(engine))
        pieces += unsettled(_accepted(cursor, number), snapshots[-1])
        cursor.execute(
            "SELECT offsets, clocks, positions FROM batch_ledger WHERE shard = %s ORDER BY seq DESC LIMIT 1", (number,)
        )
        for found in cursor:
            for column, values in zip(columns.values(), found, strict=True):
                column.update(values or {})
    _move_streams(cursor, count, partitions)
    cursor.execute("DELETE FROM job_state_snapshot; DELETE FROM job_state_delta; DELETE FROM event_clock")
    query_id = str(uuid.uuid4())
    for shard in (Shard(number, count) for number in range(count)):
        mine = (
            json.dumps({name: value for name, value in values.items() if shard.has(int(name))})
            for values in columns.values()
        )
        key = (query_id, shard.number, shard.number, count, next(iter(topics), None), shard.format, timestamp(clock))
        cursor.execute(_ENTER, (*key, *mine))
        seq = int(one(cursor)[0])
        cursor.execute("INSERT INTO event_clock (shard, clock) VALUES (%s, %s)", (shard.number, timestamp(clock)))
        state = part_of(snapshots, shard, partitions)
        delta = [rows.encode() for rows in pieces if shard.has(rows.partition)]
        for table, value in (("job_state_snapshot", state), ("job_state_delta", delta)):
            cursor.execute(
                f"INSERT INTO {table} (seq, format, payload, shard) VALUES (%s, %s, %s, %s)",  # noqa: S608 - constants
                (seq, shard.format, psycopg2.Binary(pack(value)), shard.number),
            )


def part_of(snapshots: Sequence[Snapshot], shard: Shard, partitions: int) -> Snapshot:
    """Return a shard's part of the settled state.

    :param snapshots: those of all shards before, of one event clock; :param partitions: that of the topic.
    """
    return Snapshot(
        snapshots[0].event_clock_us,
        {
            name: ts
            for each in snapshots
            for name, ts in each.own_clocks_us.items()
            if shard.has(partition_of(name.encode(), partitions))
        },
        [part for each in snapshots for part in each.partitions if shard.has(part.number)],
    )


def unsettled(accepted: Iterable[Rows], snapshot: Snapshot) -> list[Rows]:
    """Return the accepted events, as columns, without those of which the snapshot has settled all."""
    folds = {each.number: each.fold for each in snapshot.partitions}
    found = []
    for rows in accepted:
        newest_us, fold = rows.newest_ordinary_us(), folds.get(rows.partition)
        if newest_us is not None and (fold is None or newest_us >= fold * WINDOW_US):
            found.append(rows)
    return found


def _accepted(cursor: psycopg2.extensions.cursor, number: int) -> Iterator[Rows]:
    """Yield a shard's accepted events that the state holds, in the order of their commits."""
    cursor.execute("SELECT payload FROM job_state_delta WHERE shard = %s ORDER BY seq", (number,))
    for (payload,) in cursor:
        yield from map(Rows.decode, msgspec.msgpack.decode(zlib.decompress(payload), type=list[bytes]))


def _move_streams(cursor: psycopg2.extensions.cursor, count: int, partitions: int) -> None:
    """Note for each stream whose it is now."""
    cursor.execute('CREATE TEMPORARY TABLE staged_shards (stream_id text COLLATE "C", shard smallint) ON COMMIT DROP')
    cursor.execute("SELECT stream_id FROM stream_presence")
    names = [name for (name,) in cursor]
    copy(cursor, "staged_shards", ((name, partition_of(name.encode(), partitions) % count) for name in names))
    cursor.execute(_MOVE_STREAMS)
