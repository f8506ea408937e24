"""The changed rows of a batch, written set by set: COPY into a staging table, then one statement."""

import datetime
import io
from collections.abc import Iterable
from typing import Any, Final

import psycopg2
import psycopg2.extensions

from streampulse.job.counting.changes import WINDOW_US, Changes, MetricRow, PresenceRow, WindowRange

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
#: Key of the advisory lock that a batch shares from before its letters until its commit, and a swap has alone.
SWAP_KEY: Final = 0x73_70_73_77_70  # "spswp"
#: Makes the staging tables of a connection.
STAGING: Final = """
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
INSERT INTO stream_presence AS kept (stream_id, active_viewers, own_clock, last_event, shard)
SELECT stream_id, active_viewers, own_clock, last_event, %(shard)s FROM staged_presences ORDER BY stream_id
ON CONFLICT (stream_id) DO UPDATE SET
  active_viewers = EXCLUDED.active_viewers, own_clock = EXCLUDED.own_clock,
  last_event = GREATEST(kept.last_event, EXCLUDED.last_event)
"""


def write_rows(cursor: psycopg2.extensions.cursor, changes: Changes, shard: int = 0) -> int:
    """Write a batch's changed rows and the shard's event clock; return how many rows were written or removed."""
    written = 0
    if changes.cleared:
        copy(cursor, "staged_clears", (_clear_columns(cleared) for cleared in changes.cleared))
        cursor.execute(_CLEAR_ROWS)
        written += cursor.rowcount
    if changes.rows:
        copy(cursor, "staged_rows", (_row_columns(row) for row in changes.rows))
        cursor.execute(_UPSERT_ROWS)
        written += cursor.rowcount
    if changes.presences:
        copy(cursor, "staged_presences", (_presence_columns(presence) for presence in changes.presences))
        cursor.execute(_UPSERT_PRESENCES, {"shard": shard})
        written += cursor.rowcount
    cursor.execute(
        "UPDATE event_clock SET clock = %(clock)s WHERE shard = %(shard)s AND clock IS DISTINCT FROM %(clock)s",
        {"clock": timestamp(changes.event_clock_us), "shard": shard},
    )
    return written


def _row_columns(row: MetricRow) -> tuple[object, ...]:
    return timestamp(row.window * WINDOW_US), *row[1:]


def _clear_columns(cleared: WindowRange) -> tuple[object, ...]:
    return cleared.stream_id, timestamp(cleared.first * WINDOW_US), timestamp(cleared.last * WINDOW_US)


def _presence_columns(presence: PresenceRow) -> tuple[object, ...]:
    return (
        presence.stream_id,
        presence.active_viewers,
        timestamp(presence.own_clock_us),
        timestamp(presence.last_event_us),
    )


# COPY's text format: these characters of a value would be read as its syntax.
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def copy(cursor: psycopg2.extensions.cursor, table: str, rows: Iterable[tuple[object, ...]]) -> None:
    """Add rows to a table by COPY."""
    text = io.StringIO()
    for row in rows:
        text.write("\t".join("\\N" if value is None else str(value).translate(_ESCAPES) for value in row))
        text.write("\n")
    text.seek(0)
    # The name of the table is a constant.
    cursor.copy_expert(f"COPY {table} FROM STDIN", text)


def timestamp(us: int | None) -> str | None:
    """Return microseconds since the epoch as PostgreSQL reads them."""
    return None if us is None else (_EPOCH + datetime.timedelta(microseconds=us)).isoformat()


def one(cursor: psycopg2.extensions.cursor) -> tuple[Any, ...]:
    """Return the one row of an answer.

    :raises psycopg2.DatabaseError: there is none.
    """
    row = cursor.fetchone()
    if row is None:
        raise psycopg2.DatabaseError("the server returned no row")
    return row
