"""What a recount would change, at equal offsets: rows, viewers, clocks and dead letters."""

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import psycopg2.extensions
from psycopg2.extras import execute_values

from streampulse.events import partition_of
from streampulse.job.counting.state import Presences
from streampulse.job.rows import LATE
from streampulse.job.store.commit import one, timestamp
from streampulse.recount.gaps import Gap
from streampulse.recount.letters import SentLetters

#: Differences of rows that are named; the rest is counted.
SHOWN: Final = 20
_COLUMNS: Final = (
    "chat_messages", "donations", "donations_usd", "joins", "leaves", "unique_viewers", "active_viewers",
)  # fmt: skip


# Where records are missing from the log (``bounds``), a window from ``certain_from`` on has the counts of the recount
# and the present number of viewers; earlier windows are left out.
_ROWS: Final = """
CREATE TEMPORARY TABLE row_differences ON COMMIT DROP AS
WITH both_sides AS (
  SELECT window_start, stream_id, old.joins IS NOT NULL AS there, new.joins IS NOT NULL AS counted,
    bounds.stream_id IS NULL OR window_start + interval '1 minute' <= bounds.complete_before AS whole,
    coalesce(window_start >= bounds.certain_from, true) AS certain,
    old.chat_messages AS old_chat_messages, old.donations AS old_donations, old.donations_usd AS old_donations_usd,
    old.joins AS old_joins, old.leaves AS old_leaves, old.unique_viewers AS old_unique_viewers,
    old.active_viewers AS old_active_viewers,
    coalesce(new.chat_messages, 0) AS new_chat_messages, coalesce(new.donations, 0) AS new_donations,
    coalesce(new.donations_usd, 0) AS new_donations_usd, coalesce(new.joins, 0) AS new_joins,
    coalesce(new.leaves, 0) AS new_leaves, coalesce(new.unique_viewers, 0) AS new_unique_viewers,
    coalesce(new.active_viewers, 0) AS new_active_viewers
  FROM present_rows AS old FULL JOIN streampulse_recount.stream_metrics_minute AS new USING (window_start, stream_id)
  LEFT JOIN streampulse_recount.bounds AS bounds USING (stream_id)
  WHERE left(stream_id, 2) <> '__' AND window_start >= %(edge)s::timestamptz
), wanted AS (
  SELECT window_start, stream_id, there,
    counted OR (NOT whole AND old_active_viewers > 0 AND window_start <= %(clock)s::timestamptz) IS TRUE AS stays,
    old_chat_messages, old_donations, old_donations_usd, old_joins, old_leaves, old_unique_viewers, old_active_viewers,
    new_chat_messages, new_donations, new_donations_usd, new_joins, new_leaves, new_unique_viewers,
    CASE WHEN there AND NOT whole THEN old_active_viewers ELSE new_active_viewers END AS new_active_viewers
  FROM both_sides WHERE whole OR certain
)
SELECT * FROM wanted WHERE there <> stays OR (there AND (
  old_chat_messages, old_donations, old_donations_usd, old_joins, old_leaves, old_unique_viewers, old_active_viewers
) <> (
  new_chat_messages, new_donations, new_donations_usd, new_joins, new_leaves, new_unique_viewers, new_active_viewers
))
"""
_PRESENCES: Final = (
    "CREATE TEMPORARY TABLE presence_differences ON COMMIT DROP AS SELECT * FROM (SELECT stream_id,"
    " l.active_viewers IS NOT NULL AS there, s.active_viewers IS NOT NULL OR b.stream_id IS NOT NULL AS stays,"
    " l.active_viewers AS old_active_viewers, coalesce(s.active_viewers, l.active_viewers) AS new_active_viewers,"
    " l.last_event AS old_last_event, coalesce(s.last_event, l.last_event) AS new_last_event"
    " FROM present_viewers AS l FULL JOIN streampulse_recount.stream_presence AS s USING (stream_id)"
    " LEFT JOIN streampulse_recount.bounds AS b USING (stream_id) WHERE left(stream_id, 2) <> '__'"
    " AND coalesce(s.last_event, l.last_event) >= %(edge)s::timestamptz) AS found"
    # The time of the last event may be behind in the table. A time after the clock is wrong.
    " WHERE there <> stays OR old_active_viewers <> new_active_viewers"
    " OR (old_last_event > %(clock)s::timestamptz AND new_last_event <> old_last_event)"
)


@dataclass
class Differences:
    """What would change, and the first rows in words."""

    rows_added: int = 0
    rows_removed: int = 0
    rows_changed: int = 0
    streams: int = 0
    viewers_added: int = 0
    viewers_removed: int = 0
    letters_due: int = 0
    letters_overruled: int = 0
    clocks: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)

    def any(self) -> bool:
        """Tell whether anything would change."""
        return bool(
            self.rows_added
            + self.rows_removed
            + self.rows_changed
            + self.streams
            + self.viewers_added
            + self.viewers_removed
            + self.letters_due
            + self.letters_overruled
            + len(self.clocks)
        )


def _write_bounds(cursor: psycopg2.extensions.cursor, gaps: Mapping[int, Gap], partitions: int) -> None:
    """Write which rows of which streams the recount can be certain of."""
    cursor.execute("TRUNCATE streampulse_recount.bounds")
    if not gaps:
        return
    cursor.execute(
        "SELECT stream_id FROM present_rows UNION SELECT stream_id FROM present_viewers"
        " UNION SELECT stream_id FROM streampulse_recount.stream_metrics_minute"
        " UNION SELECT stream_id FROM streampulse_recount.stream_presence"
    )
    rows = []
    for (stream_id,) in cursor:
        gap = gaps.get(partition_of(stream_id.encode(), partitions))
        if gap is not None:
            before, first = gap.complete_before_us, gap.certain_from_us()
            rows.append((stream_id, timestamp(before) or "-infinity", timestamp(first) or "infinity"))
    execute_values(cursor, "INSERT INTO streampulse_recount.bounds VALUES %s", rows, page_size=1_000)


def find(
    cursor: psycopg2.extensions.cursor,
    clock_us: int | None,
    history_days: int,
    gaps: Mapping[int, Gap],
    partitions: int,
) -> Differences:
    """Find the rows and viewers to change, and leave them in the tables row_differences and presence_differences.

    The caller's transaction has the temporary views present_rows and present_viewers.

    :param clock_us: the event clock of the recount.
    """
    _write_bounds(cursor, gaps, partitions)
    clock = timestamp(clock_us) or "-infinity"
    edge = "-infinity" if clock_us is None else timestamp(clock_us - history_days * 86_400_000_000)
    cursor.execute(_ROWS, {"clock": clock, "edge": edge})
    cursor.execute(_PRESENCES, {"clock": clock, "edge": edge})
    cursor.execute(
        "SELECT count(*) FILTER (WHERE NOT there), count(*) FILTER (WHERE NOT stays),"
        " count(*) FILTER (WHERE there AND stays) FROM row_differences"
    )
    found = Differences(*one(cursor))
    cursor.execute("SELECT count(*) FROM presence_differences")
    found.streams = one(cursor)[0]
    cursor.execute("SELECT * FROM row_differences ORDER BY window_start, stream_id LIMIT %s", (SHOWN,))
    for window, stream_id, there, stays, *values in cursor:
        where = f"{window.astimezone(datetime.UTC):%Y-%m-%dT%H:%MZ} {stream_id!r}"
        before, after = values[: len(_COLUMNS)], values[len(_COLUMNS) :]
        if not there:
            found.named.append(f"added    {where}")
        elif not stays:
            found.named.append(f"removed  {where}")
        else:
            changed = zip(_COLUMNS, before, after, strict=True)
            words = ", ".join(f"{name} {was} -> {now}" for name, was, now in changed if was != now)
            found.named.append(f"changed  {where} {words}")
    return found


def clock_differences(before: Mapping[int, int], after: Mapping[int, int]) -> Iterator[str]:
    """Yield the partitions' clocks that would change, as text."""
    for number in sorted(before.keys() | after.keys()):
        was, now = (timestamp(clocks.get(number)) or "none" for clocks in (before, after))
        if was != now:
            yield f"partition {number}: {was} -> {now}"


def viewer_differences(before: Mapping[int, Presences], after: Mapping[int, Presences]) -> tuple[int, int]:
    """Return how many viewers are present by the recount only, and by the present state only."""
    added = removed = 0
    for number in before.keys() | after.keys():
        old, new = before.get(number, {}).keys(), after.get(number, {}).keys()
        added += len(new - old)
        removed += len(old - new)
    return added, removed


def letter_differences(
    cursor: psycopg2.extensions.cursor,
    sent: SentLetters,
    ends: Mapping[int, int],
    gaps: Mapping[int, Gap],
    overruled_before: int,
) -> tuple[list[tuple[int, int]], int]:
    """Return the records whose letters are due and were not sent, and how many letters were sent that are not due.

    :param ends: the offsets up to which was counted.
    :param overruled_before: letters of the topic before this offset were overruled by an earlier recount.
    """
    cursor.execute("SELECT partition, record_offset, reason FROM streampulse_recount.letters")
    expected = {(number, offset): reason for number, offset, reason in cursor}
    presumed = sent.presumed()
    due = sorted(
        (number, offset) for number, offset in expected.keys() - sent.found.keys() if offset >= presumed.get(number, 0)
    )
    overruled = 0
    for (number, offset), letter in sent.found.items():
        if offset >= ends.get(number, 0) or letter.offset < overruled_before:
            continue
        reason = expected.get((number, offset))
        missing = reason is None and letter.reason == LATE and number in gaps and not gaps[number].is_certain(offset)
        overruled += reason != letter.reason and not missing
    return due, overruled
