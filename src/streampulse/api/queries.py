"""Every statement of the API. Each reads an index up to a limit; none can scan the history.

A window is a whole minute. Ids of *ordinary* streams do not begin with ``__``. The other streams are streampulse's own
and appear only when named.
"""

from datetime import datetime, timedelta
from typing import Any, Final, Literal

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class with a small name

from streampulse.events import is_internal

Row = dict[str, Any]
Ranking = Literal["chat_messages", "donations", "donations_usd", "joins", "leaves", "unique_viewers", "active_viewers"]
MINUTE: Final = timedelta(minutes=1)

# The text of a NUMERIC(30,2) always has its two decimals; as a string no reader can make a float of it by accident.
_COLUMNS: Final = (
    "window_start, stream_id, chat_messages, donations, donations_usd::text AS donations_usd, joins, leaves, "
    "unique_viewers, active_viewers"
)
# The predicate of the index stream_metrics_minute_ordinary, in the same words.
_ORDINARY: Final = "left(stream_id, 2) <> '__'"

_NEWEST: Final = f"""
    SELECT window_start FROM stream_metrics_minute WHERE {_ORDINARY} ORDER BY window_start DESC LIMIT 1
"""  # noqa: S608 - constants only, here and below
_NEWEST_OF_STREAM: Final = """
    SELECT window_start FROM stream_metrics_minute WHERE stream_id = %(stream_id)s ORDER BY window_start DESC LIMIT 1
"""
_WINDOWS: Final = {
    (named, oldest_first): f"""
    SELECT {_COLUMNS} FROM stream_metrics_minute
    WHERE {"stream_id = %(stream_id)s" if named else _ORDINARY} AND window_start BETWEEN %(first)s AND %(last)s
    ORDER BY window_start {"" if oldest_first else "DESC"}, stream_id LIMIT %(limit)s
"""  # noqa: S608
    for named in (False, True)
    for oldest_first in (False, True)
}
# One look into the index for each stream, instead of a scan for the newest of each group.
_LATEST: Final = f"""
    SELECT m.* FROM stream_presence AS p
    CROSS JOIN LATERAL (
        SELECT {_COLUMNS} FROM stream_metrics_minute
        WHERE stream_id = p.stream_id ORDER BY stream_id, window_start DESC LIMIT 1
    ) AS m
    WHERE left(p.stream_id, 2) <> '__' AND p.stream_id > %(after)s
    ORDER BY p.stream_id LIMIT %(limit)s
"""  # noqa: S608
_LATEST_OF_STREAM: Final = f"""
    SELECT {_COLUMNS} FROM stream_metrics_minute
    WHERE stream_id = %(stream_id)s ORDER BY window_start DESC LIMIT 1
"""  # noqa: S608
_STATE: Final = f"""
    SELECT stream_id, active_viewers, updated_at FROM stream_state
    WHERE {_ORDINARY} AND stream_id > %(after)s ORDER BY stream_id LIMIT %(limit)s
"""  # noqa: S608
_STATE_OF_STREAM: Final = """
    SELECT stream_id, active_viewers, updated_at FROM stream_state WHERE stream_id = %(stream_id)s
"""
# While this text stays the same, no transaction that wrote has ended, so the tables are unchanged.
_IDENTITY: Final = """
    SELECT pg_current_snapshot()::text, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
"""
_PRESENT: Final = f"""
    SELECT stream_id, active_viewers, sum(active_viewers) OVER ()::bigint, count(*) OVER () FROM stream_presence
    WHERE {_ORDINARY} AND active_viewers > 0 ORDER BY active_viewers DESC, stream_id LIMIT %(limit)s
"""  # noqa: S608
_PRESENT_IN: Final = """
    SELECT stream_id, active_viewers FROM stream_presence WHERE stream_id = ANY(%(streams)s)
"""
_TOTALS: Final = f"""
    SELECT window_start, sum(active_viewers)::bigint AS active_viewers, sum(chat_messages)::bigint AS chat_messages,
        sum(donations)::bigint AS donations, sum(donations_usd)::text AS donations_usd
    FROM stream_metrics_minute
    WHERE {_ORDINARY} AND window_start BETWEEN %(first)s AND %(last)s GROUP BY window_start ORDER BY window_start
"""  # noqa: S608
_CLOCK: Final = "SELECT max(clock) FROM event_clock"
_SUMS: Final = f"""
    SELECT stream_id, sum(chat_messages)::bigint AS chat_messages, sum(donations)::bigint AS donations,
        sum(donations_usd)::text AS donations_usd, sum(joins)::bigint AS joins, sum(leaves)::bigint AS leaves,
        max(unique_viewers) AS unique_viewers, max(active_viewers) AS active_viewers
    FROM stream_metrics_minute
    WHERE {_ORDINARY} AND window_start BETWEEN %(first)s AND %(last)s GROUP BY stream_id
"""  # noqa: S608


def windows(
    cursor: Cursor, *, minutes: int, limit: int, stream_id: str | None, oldest_first: bool = False
) -> tuple[datetime | None, list[Row]]:
    """Return the newest window, and the rows of the last ``minutes`` windows: newest or oldest first, then by stream.

    :param limit: number of rows at most, the first ones in this order.
    :param stream_id: only this stream; None for all ordinary streams.
    """
    last = _newest_window(cursor, stream_id)
    if last is None:
        return None, []
    statement = _WINDOWS[stream_id is not None, oldest_first]
    return last, _rows(cursor, statement, _span(last, minutes) | {"limit": limit, "stream_id": stream_id})


def latest(cursor: Cursor, *, limit: int, after: str, stream_id: str | None) -> list[Row]:
    """Return the newest row of each stream by stream, for streams after a given one; or for one named stream."""
    statement = _LATEST if stream_id is None else _LATEST_OF_STREAM
    return _rows(cursor, statement, {"limit": limit, "after": after, "stream_id": stream_id})


def state(cursor: Cursor, *, limit: int, after: str, stream_id: str | None) -> list[Row]:
    """Return the viewers after the event clock by stream, for streams after a given one; or for one named stream."""
    statement = _STATE if stream_id is None else _STATE_OF_STREAM
    return _rows(cursor, statement, {"limit": limit, "after": after, "stream_id": stream_id})


def sums(cursor: Cursor, *, minutes: int) -> list[Row]:
    """Return one row for each stream over the last ``minutes`` windows: sums, for viewers maxima; in no order."""
    last = _newest_window(cursor, None)
    return [] if last is None else _rows(cursor, _SUMS, _span(last, minutes))


def identity(cursor: Cursor) -> tuple[str, int]:
    """Return a text that every writing transaction changes, and the database's time in microseconds."""
    cursor.execute(_IDENTITY)
    row = cursor.fetchone()
    assert row is not None  # noqa: S101 - always one row
    return row[0], row[1]


def newest_windows(cursor: Cursor, *, minutes: int, limit: int) -> tuple[datetime | None, list[Row], int]:
    """Return the newest window, the rows of the last windows, newest first, and how many windows these are.

    That is ``minutes``, or where ``limit`` rows do not suffice as many whole windows as they do.
    """
    last, rows = windows(cursor, minutes=minutes, limit=limit + 1, stream_id=None)
    if last is None or len(rows) <= limit:
        return last, rows, minutes
    cut = rows[-1]["window_start"]
    return last, [row for row in rows if row["window_start"] != cut], (last - cut) // MINUTE


def present(cursor: Cursor, *, limit: int) -> tuple[dict[str, int], int, int]:
    """Return viewers present in the streams with the most of them, the sum over all streams, and their number."""
    cursor.execute(_PRESENT, {"limit": limit})
    rows = cursor.fetchall()
    return {row[0]: row[1] for row in rows}, rows[0][2] if rows else 0, rows[0][3] if rows else 0


def present_in(cursor: Cursor, streams: list[str]) -> dict[str, int]:
    """Return viewers present in the named streams."""
    cursor.execute(_PRESENT_IN, {"streams": streams})
    return dict(cursor.fetchall())


def totals(cursor: Cursor, *, last: datetime, minutes: int) -> list[Row]:
    """Return the sums over all streams for each of the last windows that has rows, oldest first."""
    return _rows(cursor, _TOTALS, _span(last, minutes))


def clock(cursor: Cursor) -> datetime | None:
    """Return the event clock, None before the first event."""
    cursor.execute(_CLOCK)
    row = cursor.fetchone()
    return row[0] if row else None


def ended_sessions(cursor: Cursor) -> list[str]:
    """Return the ids of ended log-ins that would still be valid otherwise."""
    cursor.execute("SELECT id FROM api_ended_sessions WHERE expires_at > now()")
    return [row[0] for row in cursor.fetchall()]


def session_epoch(cursor: Cursor) -> str:
    """Return the id of the epoch of log-ins. A database that is recreated has another one."""
    cursor.execute("SELECT id::text FROM api_session_epoch")
    return str(cursor.fetchall()[0][0])


def end_session(cursor: Cursor, id_: str, seconds: int) -> None:
    """Note that a log-in was ended, as the role that may write this one table; needs a transaction of its own.

    :param seconds: how long a log-in lasts at most.
    """
    cursor.execute("SET TRANSACTION READ WRITE")
    cursor.execute("SET LOCAL ROLE streampulse_sessions")
    cursor.execute("DELETE FROM api_ended_sessions WHERE expires_at <= now()")
    cursor.execute(
        "INSERT INTO api_ended_sessions VALUES (%s, now() + make_interval(secs => %s)) ON CONFLICT DO NOTHING",
        (id_, seconds),
    )


def _newest_window(cursor: Cursor, stream_id: str | None) -> datetime | None:
    """Return the newest window of all ordinary streams, or of a named stream of streampulse's own if that is newer.

    Such a stream must be visible by name also if it is ahead of all others, or alone.
    """
    cursor.execute(_NEWEST)
    found = [row[0] for row in cursor.fetchall()]
    if stream_id is not None and is_internal(stream_id):
        cursor.execute(_NEWEST_OF_STREAM, {"stream_id": stream_id})
        found += [row[0] for row in cursor.fetchall()]
    return max(found, default=None)


def _span(last: datetime, minutes: int) -> dict[str, Any]:
    # A minute without any row is a window of zeros and counts as one of the last n.
    return {"first": last - (minutes - 1) * MINUTE, "last": last}


def _rows(cursor: Cursor, statement: str, parameters: dict[str, Any]) -> list[Row]:
    cursor.execute(statement, parameters)
    assert cursor.description is not None  # noqa: S101 - a SELECT
    names = [column.name for column in cursor.description]
    return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]
