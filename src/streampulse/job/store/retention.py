"""The end of what is kept: rows and streams older than the history, and old ledger entries."""

from typing import Final

import psycopg2.extensions

from streampulse.job.shards import ALONE, Shard
from streampulse.job.store.commit import one, timestamp

# One call removes this many windows, and this many ledger entries, so that no statement holds its locks for long.
_WINDOWS: Final = 60
_ENTRIES: Final = 5_000
#: Of older ledger entries one a minute is kept.
WHOLE_LEDGER_DAYS: Final = 2
#: As long as the topic of the dead letters is kept unless it is set otherwise.
_LETTER_DAYS: Final = 30


def forget_old(cursor: psycopg2.extensions.cursor, event_clock_us: int, history_us: int) -> bool:
    """Remove what is older than the history, a bounded piece at a time.

    :param history_us: length of the history in microseconds.
    :returns: whether there is more to remove.
    """
    horizon = timestamp(event_clock_us - history_us)
    cursor.execute(
        "DELETE FROM stream_metrics_minute WHERE window_start < %(horizon)s AND window_start <"
        " (SELECT min(window_start) FROM stream_metrics_minute) + %(windows)s * interval '1 minute'",
        {"horizon": horizon, "windows": _WINDOWS},
    )
    cursor.execute("SELECT min(window_start) < %s FROM stream_metrics_minute", (horizon,))
    more = bool(one(cursor)[0])
    cursor.execute(
        "DELETE FROM stream_presence AS p WHERE active_viewers = 0"
        " AND last_event < %s::timestamptz - interval '1 hour' AND NOT"
        " EXISTS (SELECT FROM stream_metrics_minute AS m WHERE m.stream_id = p.stream_id)",
        (horizon,),
    )
    cursor.execute("DELETE FROM dead_letter_groups WHERE bucket < now() - %s * interval '1 day'", (_LETTER_DAYS,))
    return more


def forget_entries(cursor: psycopg2.extensions.cursor, shard: Shard, days: int) -> bool:
    """Remove ledger entries of a shard, the first one also of those that are no more, a bounded piece at a time.

    :param days: length of the ledger in days.
    :returns: whether there is more to remove.
    """
    # Entries are as old as they are in order, so the oldest are looked at and no others. The newest is the
    # shard's position and stays, however old.
    cursor.execute(
        "DELETE FROM batch_ledger WHERE seq IN (SELECT seq FROM (SELECT seq, committed_at FROM batch_ledger"
        " WHERE shard = %(shard)s OR (%(shard)s = 0 AND shard >= %(shards)s) ORDER BY seq LIMIT %(limit)s) AS oldest"
        " WHERE committed_at < now() - %(days)s * interval '1 day')"
        " AND seq < (SELECT max(seq) FROM batch_ledger WHERE shard = %(shard)s)",
        {"shard": shard.number, "shards": shard.count, "limit": _ENTRIES, "days": days},
    )
    return cursor.rowcount >= _ENTRIES


def thin_ledger(cursor: psycopg2.extensions.cursor, after_seq: int, shard: Shard = ALONE) -> int:
    """Remove a bounded piece of a shard's older ledger entries, but for the last one of each minute.

    :param after_seq: up to which entry the ledger was thinned before.
    :returns: up to which entry it is thinned now.
    """
    cursor.execute(
        "WITH old AS (SELECT seq, date_trunc('minute', committed_at) AS minute,"
        " lead(date_trunc('minute', committed_at)) OVER (ORDER BY seq) AS next FROM"
        " (SELECT seq, committed_at FROM batch_ledger WHERE seq > %(after)s AND shard = %(shard)s"
        " ORDER BY seq LIMIT %(limit)s) AS oldest"
        " WHERE committed_at < now() - %(days)s * interval '1 day'),"
        " gone AS (DELETE FROM batch_ledger WHERE seq IN (SELECT seq FROM old WHERE minute = next))"
        " SELECT max(seq) FROM old WHERE next IS NOT NULL",
        {"after": after_seq, "shard": shard.number, "limit": _ENTRIES, "days": WHOLE_LEDGER_DAYS},
    )
    return int(one(cursor)[0] or after_seq)
