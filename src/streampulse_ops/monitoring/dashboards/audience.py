"""Audience: who watches, chats and gives, by stream and minute, from the tables that the API answers from."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard

from streampulse_ops.monitoring.dashboards import panels

#: However long a range is asked for, a query reads no more than its last day.
HOURS: Final = 24
#: Streams that are drawn as lines, and listed.
LINES: Final = 10
LISTED: Final = 25
#: Streams among which one can be chosen.
CHOICES: Final = 1000

# Streams whose id begins with __ are our own: no number of theirs is anybody's audience.
_OURS = "left(stream_id, 2) <> '__'"
_WINDOWS = (
    f"FROM stream_metrics_minute WHERE $__timeFilter(window_start)"
    f" AND window_start > $__timeTo()::timestamptz - interval '{HOURS} hours' AND {_OURS}"
)
_ONE = (
    f"FROM stream_metrics_minute WHERE $__timeFilter(window_start)"
    f" AND window_start > $__timeTo()::timestamptz - interval '{HOURS} hours'"
    f" AND {_OURS} AND stream_id = ${{stream:sqlstring}} ORDER BY 1"
)
_NEWEST = "The newest minute is still filling, so its point grows until the minute is over."
_BOUND = f"Of a longer range, the last {HOURS} hours are read."


def stream() -> builders.QueryVariable:
    """Return the variable that chooses one stream."""
    statement = f"SELECT stream_id FROM stream_state WHERE {_OURS} ORDER BY stream_id LIMIT {CHOICES}"  # noqa: S608 - constants only, here and below
    return (
        builders.QueryVariable("stream")
        .label("Stream")
        .datasource(panels.NUMBERS)
        .query(statement)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
    )


def _per_minute(
    number: int, title: str, description: str, unit: str, columns: str, *, one: bool = False
) -> panels.Panel:
    tail = _ONE if one else f"{_WINDOWS} GROUP BY 1 ORDER BY 1"
    query = panels.sql(f'SELECT window_start AS "time", {columns} {tail}', over_time=True)
    return panels.graph(number, title, f"{description} {_NEWEST}", unit, query, span=12)


def build() -> dashboard.Dashboard:
    """Return the dashboard."""
    now = [
        panels.figure(
            1,
            "Viewers",
            """Viewers present now, over all streams: those who joined, have not left, and were heard of within the
            viewer time-out.""",
            panels.COUNT,
            panels.sql(f'SELECT coalesce(sum(active_viewers), 0)::bigint AS "viewers" FROM stream_state WHERE {_OURS}'),  # noqa: S608
        ),
        panels.figure(
            2,
            "Streams with viewers",
            "Streams on which at least one viewer is present now.",
            panels.COUNT,
            panels.sql(f'SELECT count(*) AS "streams" FROM stream_state WHERE active_viewers > 0 AND {_OURS}'),  # noqa: S608
        ),
        panels.figure(
            3,
            "Chat messages",
            f"Chat messages in the chosen range, over all streams. {_BOUND}",
            panels.COUNT,
            panels.sql(f'SELECT coalesce(sum(chat_messages), 0)::bigint AS "messages" {_WINDOWS}'),
        ),
        panels.figure(
            4,
            "Donations",
            f"Donations in the chosen range, over all streams, in US dollars. {_BOUND}",
            panels.DOLLARS,
            panels.sql(f'SELECT coalesce(sum(donations_usd), 0)::float8 AS "donations" {_WINDOWS}'),
            decimals=2,
        ),
        panels.figure(
            5,
            "Newest minute",
            """The minute up to which the numbers reach, by the time of the events. More than a few minutes ago: no
            events arrive, or they are not counted; the dashboard Pipeline says which.""",
            panels.AGO,
            panels.sql(
                f"""SELECT (extract(epoch FROM window_start) * 1000)::float8 AS "newest" FROM stream_metrics_minute
                WHERE {_OURS} ORDER BY window_start DESC, stream_id LIMIT 1"""  # noqa: S608
            ),
            nothing="no events yet",
            links=[panels.down("pipeline")],
        ),
        panels.figure(
            6,
            "Largest stream",
            "The stream with the most viewers now; of several, the first by name.",
            panels.NO_UNIT,
            panels.sql(
                f"""SELECT stream_id AS "stream" FROM stream_state WHERE {_OURS}
                ORDER BY active_viewers DESC, stream_id LIMIT 1"""  # noqa: S608
            ),
            nothing="no streams yet",
            word=True,
        ),
    ]
    together = [
        _per_minute(
            10,
            "Viewers",
            "Viewers present at the end of each minute, over all streams.",
            panels.COUNT,
            'sum(active_viewers)::bigint AS "viewers"',
        ),
        _per_minute(
            11,
            "Chat messages",
            "Chat messages of each minute, over all streams.",
            panels.COUNT,
            'sum(chat_messages)::bigint AS "messages"',
        ),
        _per_minute(
            12,
            "Donations",
            "Donations of each minute, over all streams, in US dollars.",
            panels.DOLLARS,
            'sum(donations_usd)::float8 AS "donations"',
        ),
        _per_minute(
            13,
            "Joins and leaves",
            "How many joined and left in each minute, over all streams. More joins than leaves: the audience grows.",
            panels.COUNT,
            'sum(joins)::bigint AS "joins", sum(leaves)::bigint AS "leaves"',
        ),
    ]
    by_stream = [
        panels.graph(
            20,
            f"Viewers of the {LINES} largest streams",
            f"""Viewers present at the end of each minute, of the {LINES} streams that had the most at any time of the
            range. {_NEWEST} {_BOUND}""",
            panels.COUNT,
            panels.sql(
                f"""WITH largest AS (SELECT stream_id {_WINDOWS}
                GROUP BY stream_id ORDER BY max(active_viewers) DESC, stream_id LIMIT {LINES})
                SELECT window_start AS "time", stream_id AS metric, active_viewers AS "viewers"
                {_WINDOWS} AND stream_id IN (SELECT stream_id FROM largest) ORDER BY 1""",  # noqa: S608
                over_time=True,
            ),
            height=10,
            span=12,
        ),
        panels.table(
            21,
            f"The {LISTED} streams with the most donations",
            f"""Sums over the chosen range by stream; viewers are the most at the end of any minute. The same order as
            the API's ranking. {_BOUND}""",
            panels.COUNT,
            panels.sql(
                f"""SELECT stream_id AS "stream", sum(donations_usd)::float8 AS "donated",
                sum(donations)::bigint AS "donations", sum(chat_messages)::bigint AS "chat messages",
                max(active_viewers) AS "most viewers", max(unique_viewers) AS "most unique viewers in a minute"
                {_WINDOWS} GROUP BY stream_id ORDER BY 2 DESC, 1 LIMIT {LISTED}"""
            ),
            overrides={
                "donated": [("unit", panels.DOLLARS), ("decimals", 2)],
                "stream": [("links", [{"title": "This stream alone", "url": _this_stream()}])],
            },
            height=10,
        ),
    ]
    single = [
        _per_minute(
            30,
            "Viewers of $stream",
            """Viewers present at the end of each minute, and how many different users were seen in it, of the stream
            chosen above.""",
            panels.COUNT,
            'active_viewers AS "viewers", unique_viewers AS "unique viewers"',
            one=True,
        ),
        _per_minute(
            31,
            "Chat messages and donations of $stream",
            "Chat messages of each minute, and donations as a count, of the stream chosen above.",
            panels.COUNT,
            'chat_messages AS "messages", donations AS "donations"',
            one=True,
        ),
    ]
    return panels.board(
        "audience",
        """Who watches, chats and gives: over all streams, by stream, and one stream alone. Read from the tables that
        the API answers from; streams of streampulse's own are left out.""",
        [panels.numbers(), stream()],
        [("Now", now), ("All streams", together), ("By stream", by_stream), ("One stream", single)],
    )


def _this_stream() -> str:
    return (
        f"/d/{panels.uid('audience')}?${{__url_time_range}}&${{numbers:queryparam}}"
        "&var-stream=${__value.raw:percentencode}"
    )
