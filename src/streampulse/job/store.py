"""PostgreSQL as the job sees it: the tables, the ledger and the durable form of the working state.

One transaction commits everything a batch changes, so the tables, the offsets and the state never disagree. The
position in Kafka is the ledger's: a checkpoint of Spark's is only good for the run that made it.
"""

from __future__ import annotations

import datetime
import io
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import psycopg2
import psycopg2.extensions

from streampulse.core.errors import OperatorError
from streampulse.core.settings import PostgresSettings
from streampulse.job.counting.changes import WINDOW_US, Changes, MetricRow, PresenceRow, WindowRange
from streampulse.job.counting.engine import Engine
from streampulse.job.counting.state import Snapshot, restore, take_snapshot
from streampulse.job.rows import Rows

#: Key of the advisory lock that the one driver holds while it may write.
LOCK_KEY: Final = 0x73_70_6A_6F_62  # "spjob"
#: A snapshot is due after this many accepted events, so that a start replays no more than these and ten minutes'.
SNAPSHOT_EVERY_EVENTS: Final = 50_000
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
# Retention takes this many windows at a time, so that no statement holds its locks for long.
_RETENTION_WINDOWS = 60
_RETENTION_ENTRIES = 5_000

_STAGING = """
CREATE TEMPORARY TABLE IF NOT EXISTS staged_rows (
  window_start timestamptz, stream_id text COLLATE "C", chat_messages bigint, donations bigint, donations_cents bigint,
  joins bigint, leaves bigint, unique_viewers bigint, active_viewers bigint) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS staged_clears (
  stream_id text COLLATE "C", first timestamptz, last timestamptz) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS staged_presences (
  stream_id text COLLATE "C", active_viewers bigint, own_clock timestamptz, last_event timestamptz)
  ON COMMIT DELETE ROWS;
"""
# Sorted, so that two writers could never wait for each other, and the index is walked once.
_UPSERT_ROWS = """
INSERT INTO stream_metrics_minute AS kept
SELECT window_start, stream_id, chat_messages, donations, (donations_cents::numeric / 100)::numeric(30, 2),
       joins, leaves, unique_viewers, active_viewers
FROM staged_rows ORDER BY window_start, stream_id
ON CONFLICT (window_start, stream_id) DO UPDATE SET
  chat_messages = EXCLUDED.chat_messages, donations = EXCLUDED.donations, donations_usd = EXCLUDED.donations_usd,
  joins = EXCLUDED.joins, leaves = EXCLUDED.leaves, unique_viewers = EXCLUDED.unique_viewers,
  active_viewers = EXCLUDED.active_viewers
WHERE (kept.chat_messages, kept.donations, kept.donations_usd, kept.joins, kept.leaves, kept.unique_viewers,
       kept.active_viewers)
  IS DISTINCT FROM
      (EXCLUDED.chat_messages, EXCLUDED.donations, EXCLUDED.donations_usd, EXCLUDED.joins, EXCLUDED.leaves,
       EXCLUDED.unique_viewers, EXCLUDED.active_viewers)
"""
_CLEAR_ROWS = """
DELETE FROM stream_metrics_minute AS kept USING staged_clears AS gone
WHERE kept.stream_id = gone.stream_id AND kept.window_start BETWEEN gone.first AND gone.last
"""
_UPSERT_PRESENCES = """
INSERT INTO stream_presence AS kept
SELECT stream_id, active_viewers, own_clock, last_event FROM staged_presences ORDER BY stream_id
ON CONFLICT (stream_id) DO UPDATE SET
  active_viewers = EXCLUDED.active_viewers, own_clock = EXCLUDED.own_clock,
  last_event = GREATEST(kept.last_event, EXCLUDED.last_event)
"""
_NOTE_TOPIC = "INSERT INTO topics_read (topic_id) VALUES (%s) ON CONFLICT DO NOTHING"


@dataclass(slots=True)
class Batch:
    """What a batch commits besides the changed rows."""

    query_id: str
    batch_id: int
    topic_id: str | None
    dead_letters: dict[str, int]


@dataclass(slots=True)
class _Delta:
    """A stored delta: which rows it still guards, by partition its newest event's time in microseconds."""

    seq: int
    newest_us: dict[int, int]


class Store:
    """The job's connection, its lock, and what it knows of the stored state.

    :param settings: where the database is and who writes.
    :param viewer_timeout_us: see :class:`~streampulse.job.counting.engine.Engine`.
    :param history_days: rows whose window begins more than this many days before the event clock are removed.
    :param ledger_days: entries of the ledger that are older than this are removed, but for the newest.
    """

    def __init__(self, settings: PostgresSettings, viewer_timeout_us: int, history_days: int, ledger_days: int) -> None:
        self._settings = settings
        self._timeout = viewer_timeout_us
        self._history_us = history_days * 86_400 * 1_000_000
        self._ledger_days = ledger_days
        self._connection: psycopg2.extensions.connection | None = None
        self._deltas: list[_Delta] = []
        self._events_since_snapshot = 0
        self._snapshot_folds: dict[int, int | None] = {}
        # The topic that is known to be among those that were read.
        self._topic_id: str | None = None

    def open(self) -> None:
        """Connect and become the one writer.

        :raises OperatorError: another driver is the writer.
        :raises psycopg2.OperationalError: the server does not answer.
        """
        self.close()
        connection = psycopg2.connect(**self._settings.connection_arguments("streampulse-job"))
        self._connection = connection
        with connection.cursor() as cursor:
            # A batch that cannot get on must fail and be taken up again, not hang.
            cursor.execute("SET statement_timeout = '60s'; SET lock_timeout = '10s'")
            cursor.execute("SET idle_in_transaction_session_timeout = '60s'")
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_KEY,))
            if not _one(cursor)[0]:
                self.close()
                raise OperatorError(
                    "another driver of the job writes to this database: one at a time. "
                    "Look for it: inv status; end the other one, or wait until it has ended"
                )
            cursor.execute(_STAGING)
        connection.commit()

    def close(self) -> None:
        """Give up the connection, and with it the lock."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- the state -----------------------------------------------------------------------------------------------

    def load(self) -> tuple[Engine, str | None]:
        """Rebuild the working state as of the newest ledger row.

        :returns: the engine, and the id of the topic that the offsets are of (None: nothing was ever committed).
        """
        with self._cursor() as cursor:
            cursor.execute(
                "SELECT offsets, clocks, topic_id, (SELECT clock FROM event_clock)"
                " FROM batch_ledger ORDER BY seq DESC LIMIT 1"
            )
            newest = cursor.fetchone()
            cursor.execute("SELECT seq, payload FROM job_state_snapshot ORDER BY seq DESC LIMIT 1")
            saved = cursor.fetchone()
            covered, snapshot = (
                (0, Snapshot(None, {}, [])) if saved is None else (saved[0], _unpack(saved[1], Snapshot))
            )
            cursor.execute("SELECT seq, payload FROM job_state_delta ORDER BY seq")
            stored = [(seq, _unpack(payload, list[bytes])) for seq, payload in cursor]
        self._end()
        offsets, clocks, topic_id, event_clock = newest or ({}, {}, None, None)
        self._deltas = []
        before, since = list[Rows](), list[Rows]()
        for seq, pieces in stored:
            rows = [Rows.decode(piece) for piece in pieces]
            self._deltas.append(_Delta(seq, _newest(rows)))
            (before if seq <= covered else since).extend(rows)
        self._snapshot_folds = {partition.number: partition.fold for partition in snapshot.partitions}
        self._events_since_snapshot = _weight(before) + _weight(since)
        engine = restore(
            self._timeout,
            snapshot,
            before,
            since,
            {int(number): clock for number, clock in clocks.items()},
            {int(number): offset for number, offset in offsets.items()},
            None if event_clock is None else _microseconds(event_clock),
        )
        return engine, topic_id

    def committed(self, query_id: str, batch_id: int) -> bool:
        """Tell whether a batch is in the ledger."""
        with self._cursor() as cursor:
            cursor.execute("SELECT 1 FROM batch_ledger WHERE query_id = %s AND batch_id = %s", (query_id, batch_id))
            found = cursor.fetchone() is not None
        self._end()
        return found

    def commit(self, batch: Batch, engine: Engine, changes: Changes, accepted: Sequence[Rows]) -> int:
        """Commit a batch: its rows, its offsets, its ledger row and the state's changelog, all or nothing.

        :param accepted: the accepted events, as :meth:`Engine.apply` returned them.
        :returns: how many rows of the tables were written or removed.
        """
        with self._cursor() as cursor:
            written = _write_rows(cursor, changes)
            cursor.execute(
                "INSERT INTO batch_ledger (query_id, batch_id, topic_id, offsets, clocks, event_clock, accepted,"
                " duplicates, dead_letters, rows_written) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
                " RETURNING seq",
                (
                    batch.query_id,
                    batch.batch_id,
                    batch.topic_id,
                    json.dumps(engine.next_offsets()),
                    json.dumps(engine.partition_clocks()),
                    _timestamp(changes.event_clock_us),
                    changes.accepted,
                    changes.duplicates,
                    json.dumps(batch.dead_letters),
                    written,
                ),
            )
            seq = int(_one(cursor)[0])
            if batch.topic_id is not None and batch.topic_id != self._topic_id:
                cursor.execute(_NOTE_TOPIC, (batch.topic_id,))
            kept = [rows for rows in accepted if len(rows) or rows.own_clocks]
            if kept:
                cursor.execute(
                    "INSERT INTO job_state_delta VALUES (%s, %s)", (seq, _pack([rows.encode() for rows in kept]))
                )
            snapshot = self._write_snapshot(cursor, seq, engine, _weight(kept))
        self._end()
        # Only now: what a failed transaction did not do must not be remembered as done.
        self._topic_id = batch.topic_id
        if kept:
            self._deltas.append(_Delta(seq, _newest(kept)))
            self._events_since_snapshot += _weight(kept)
        if snapshot is not None:
            self._snapshot_folds = {partition.number: partition.fold for partition in snapshot.partitions}
            self._deltas = [delta for delta in self._deltas if self._is_needed(delta)]
            self._events_since_snapshot = 0
        return written

    def _write_snapshot(
        self, cursor: psycopg2.extensions.cursor, seq: int, engine: Engine, events: int
    ) -> Snapshot | None:
        """Write a snapshot where it would let old deltas go, and remove those."""
        if self._events_since_snapshot + events < SNAPSHOT_EVERY_EVENTS:
            return None
        snapshot = take_snapshot(engine)
        folds = {partition.number: partition.fold for partition in snapshot.partitions}
        unneeded = [delta.seq for delta in self._deltas if not _guards(delta, folds)]
        cursor.execute("DELETE FROM job_state_snapshot")
        cursor.execute("INSERT INTO job_state_snapshot VALUES (%s, %s)", (seq, _pack(snapshot)))
        cursor.execute("DELETE FROM job_state_delta WHERE seq = ANY(%s)", (unneeded,))
        return snapshot

    def _is_needed(self, delta: _Delta) -> bool:
        return _guards(delta, self._snapshot_folds)

    # -- retention ------------------------------------------------------------------------------------------------

    def forget_old(self, event_clock_us: int) -> bool:
        """Remove rows and streams older than the history, and old ledger entries, a bounded piece at a time.

        :returns: whether there is more to remove.
        """
        horizon = _timestamp(event_clock_us - self._history_us)
        with self._cursor() as cursor:
            cursor.execute(
                "DELETE FROM stream_metrics_minute WHERE window_start < %(horizon)s AND window_start <"
                " (SELECT min(window_start) FROM stream_metrics_minute) + %(windows)s * interval '1 minute'",
                {"horizon": horizon, "windows": _RETENTION_WINDOWS},
            )
            cursor.execute("SELECT min(window_start) < %s FROM stream_metrics_minute", (horizon,))
            more = bool(_one(cursor)[0])
            cursor.execute(
                "DELETE FROM stream_presence AS p WHERE active_viewers = 0"
                " AND last_event < %s::timestamptz - interval '1 hour' AND NOT"
                " EXISTS (SELECT FROM stream_metrics_minute AS m WHERE m.stream_id = p.stream_id)",
                (horizon,),
            )
            # Entries are as old as they are in order, so the oldest are looked at and no others. The newest is the
            # job's position and stays, however old.
            cursor.execute(
                "DELETE FROM batch_ledger WHERE seq IN (SELECT seq FROM"
                " (SELECT seq, committed_at FROM batch_ledger ORDER BY seq LIMIT %(limit)s) AS oldest"
                " WHERE committed_at < now() - %(days)s * interval '1 day')"
                " AND seq < (SELECT max(seq) FROM batch_ledger)",
                {"limit": _RETENTION_ENTRIES, "days": self._ledger_days},
            )
            more = more or cursor.rowcount >= _RETENTION_ENTRIES
        self._end()
        return more

    # -- the connection -------------------------------------------------------------------------------------------

    def _cursor(self) -> psycopg2.extensions.cursor:
        if self._connection is None:
            raise psycopg2.InterfaceError("not connected")
        return self._connection.cursor()

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.commit()


def _write_rows(cursor: psycopg2.extensions.cursor, changes: Changes) -> int:
    written = 0
    if changes.cleared:
        _copy(cursor, "staged_clears", (_clear_columns(cleared) for cleared in changes.cleared))
        cursor.execute(_CLEAR_ROWS)
        written += cursor.rowcount
    if changes.rows:
        _copy(cursor, "staged_rows", (_row_columns(row) for row in changes.rows))
        cursor.execute(_UPSERT_ROWS)
        written += cursor.rowcount
    if changes.presences:
        _copy(cursor, "staged_presences", (_presence_columns(presence) for presence in changes.presences))
        cursor.execute(_UPSERT_PRESENCES)
        written += cursor.rowcount
    cursor.execute(
        "UPDATE event_clock SET clock = %(clock)s WHERE clock IS DISTINCT FROM %(clock)s",
        {"clock": _timestamp(changes.event_clock_us)},
    )
    return written


def _row_columns(row: MetricRow) -> tuple[object, ...]:
    return _timestamp(row.window * WINDOW_US), *row[1:]


def _clear_columns(cleared: WindowRange) -> tuple[object, ...]:
    return cleared.stream_id, _timestamp(cleared.first * WINDOW_US), _timestamp(cleared.last * WINDOW_US)


def _presence_columns(presence: PresenceRow) -> tuple[object, ...]:
    return (
        presence.stream_id,
        presence.active_viewers,
        _timestamp(presence.own_clock_us),
        _timestamp(presence.last_event_us),
    )


# COPY's text format: these characters of a value would be read as its syntax.
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def _copy(cursor: psycopg2.extensions.cursor, table: str, rows: Iterable[tuple[object, ...]]) -> None:
    text = io.StringIO()
    for row in rows:
        text.write("\t".join("\\N" if value is None else str(value).translate(_ESCAPES) for value in row))
        text.write("\n")
    text.seek(0)
    # The name of the table is one of the constants above.
    cursor.copy_expert(f"COPY {table} FROM STDIN", text)


def _timestamp(us: int | None) -> str | None:
    return None if us is None else (_EPOCH + datetime.timedelta(microseconds=us)).isoformat()


def _microseconds(moment: datetime.datetime) -> int:
    return (moment - _EPOCH) // datetime.timedelta(microseconds=1)


def _one(cursor: psycopg2.extensions.cursor) -> tuple[Any, ...]:
    row = cursor.fetchone()
    if row is None:
        raise psycopg2.DatabaseError("the server returned no row where there always is one")
    return row


def _pack(value: object) -> psycopg2.extensions.Binary:
    # Level 1: three quarters of what level 6 saves, at a fifth of its time.
    return psycopg2.Binary(zlib.compress(msgspec.msgpack.encode(value), 1))


def _unpack(payload: memoryview, kind: Any) -> Any:
    return msgspec.msgpack.decode(zlib.decompress(payload), type=kind)


def _weight(pieces: Sequence[Rows]) -> int:
    """Return how much the pieces bring a snapshot nearer: their events, and clocks moved by what is not among them."""
    return sum(len(rows) + len(rows.own_clocks) for rows in pieces)


def _newest(pieces: Sequence[Rows]) -> dict[int, int]:
    # Without our own streams: a snapshot holds what is not settled of them.
    newest: dict[int, int] = {}
    for rows in pieces:
        newest_us = rows.newest_ordinary_us()
        if newest_us is not None:
            newest[rows.partition] = max(newest.get(rows.partition, 0), newest_us)
    return newest


def _guards(delta: _Delta, folds: dict[int, int | None]) -> bool:
    """Tell whether a delta holds events that the snapshot with these folds has not settled."""
    for partition, newest_us in delta.newest_us.items():
        fold = folds.get(partition)
        if fold is None or newest_us >= fold * WINDOW_US:
            return True
    return False
