"""Events of ``/live``: the view that the page draws, computed from one reading, and its server-sent events.

The first event, ``snapshot``, has everything that the page draws. Each ``update`` has the changes since the reader's
last event, as absolute values. An event's id is the database's time of its reading, in microseconds, so all workers
give the same id to the same reading.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class with a small name

from streampulse.api import queries
from streampulse.api.queries import MINUTE, Row
from streampulse.api.questions import cents, dollars
from streampulse.api.snapshot import Snapshot

#: Windows that the table's sums span, as in the default of /streams/top; fewer if a snapshot holds fewer windows.
SUM_MINUTES: Final = 10
#: Windows of a stream's trend line; fewer if a snapshot holds fewer windows.
TREND_MINUTES: Final = 15
#: Windows of the trend of the totals.
TOTAL_MINUTES: Final = 60
#: Streams of each ranking (by viewers, by chat, by donations) that a view has.
RANKED: Final = 50
#: Changes of a stream are kept for this long, in seconds. A reader that returns later gets a snapshot.
MEMORY_SECONDS: Final = 300

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class View:
    """The numbers that the page draws, from one reading."""

    id: int
    head: dict[str, Any]
    totals_trend: dict[str, Any]
    #: stream: viewers now, and chat messages, donations and cents in the last SUM_MINUTES windows.
    streams: dict[str, tuple[int, int, int, int]]
    #: stream: viewers at the end of each of the last windows but the newest, oldest first.
    trends: dict[str, tuple[int, ...]]


@dataclass
class Changes:
    """When, by the id of the view, each stream's numbers or trend last changed or went away."""

    since: int
    numbers: dict[str, int] = field(default_factory=dict)
    trends: dict[str, int] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    totals_trend: int = 0

    def note(self, old: View, new: View) -> None:
        """Note the changes between two views; forget old ones."""
        for stream, numbers in new.streams.items():
            if old.streams.get(stream) != numbers:
                self.numbers[stream] = new.id
            if old.trends.get(stream) != new.trends[stream]:
                self.trends[stream] = new.id
            self.gone.pop(stream, None)
        for stream in old.streams:
            if stream not in new.streams:
                self.gone[stream] = new.id
                self.numbers.pop(stream, None)
                self.trends.pop(stream, None)
        if old.totals_trend != new.totals_trend:
            self.totals_trend = new.id
        horizon = new.id - MEMORY_SECONDS * 1_000_000
        if self.since < horizon:
            self.since = horizon
            self.gone = {stream: changed for stream, changed in self.gone.items() if changed >= horizon}


def event(name: str, document: dict[str, Any], id_: int | None = None) -> bytes:
    """Return one server-sent event. JSON has no line breaks, so it is one line of data."""
    first = b"" if id_ is None else b"id: %d\n" % id_
    return first + b"event: " + name.encode() + b"\ndata: " + _encode(document) + b"\n\n"


def _row(view: View, stream: str, trend: bool) -> dict[str, Any]:
    viewers, chat, donations, amount = view.streams[stream]
    row: dict[str, Any] = {
        "stream_id": stream,
        "active_viewers": viewers,
        "chat_messages": chat,
        "donations": donations,
        "donations_usd": dollars(amount),
    }
    if trend:
        row["trend"] = view.trends[stream]
    return row


def full(view: View) -> bytes:
    """Return the event that has everything."""
    rows = [_row(view, stream, trend=True) for stream in view.streams]
    return event("snapshot", view.head | {"totals_trend": view.totals_trend, "rows": rows}, view.id)


def changed(view: View, changes: Changes, since: int) -> bytes:
    """Return the event with the changes since a view.

    :param since: id of that view.
    """
    rows = []
    for stream in view.streams:
        trend = changes.trends.get(stream, 0) > since
        if trend or changes.numbers.get(stream, 0) > since:
            rows.append(_row(view, stream, trend))
    document = view.head | {"rows": rows, "removed": [name for name, when in changes.gone.items() if when > since]}
    if changes.totals_trend > since:
        document["totals_trend"] = view.totals_trend
    return event("update", document, view.id)


def make_view(cursor: Cursor, snapshot: Snapshot, totals: list[Row]) -> View:
    """Compute the numbers that the page draws.

    :param totals: sums over all streams for each window, oldest first, the newest ones as in the snapshot.
    """
    viewers, all_viewers, streams_live = queries.present(cursor, limit=RANKED)
    newest = snapshot.newest
    sums: dict[str, list[int]] = {}
    by_window = {row["window_start"]: row for row in totals}
    if newest is not None:
        first = newest - (SUM_MINUTES - 1) * MINUTE
        for row in snapshot.rows:
            if row["window_start"] < first:
                break
            found = sums.setdefault(row["stream_id"], [0, 0, 0])
            found[0] += row["chat_messages"]
            found[1] += row["donations"]
            found[2] += cents(row["donations_usd"])
    shown = dict.fromkeys(viewers)
    for column in range(3):
        order = sorted(sums, key=lambda stream: (-sums[stream][column], stream))
        shown |= dict.fromkeys(stream for stream in order[:RANKED] if sums[stream][column])
    # Streams of the last windows whose numbers are all small still fill a table that has room.
    for stream in sums:
        if len(shown) >= RANKED:
            break
        shown[stream] = None
    missing = [stream for stream in shown if stream not in viewers]
    viewers |= queries.present_in(cursor, missing) if missing else {}
    nothing = [0, 0, 0]
    return View(
        id=snapshot.read_at,
        head={
            "read_at": datetime.fromtimestamp(snapshot.read_at / 1_000_000, UTC),
            "event_clock": queries.clock(cursor),
            "window_start": newest,
            "minutes": min(SUM_MINUTES, snapshot.minutes),
            "totals": {
                "active_viewers": all_viewers,
                "streams": streams_live,
                "current_minute": _minute(by_window, newest),
                "last_minute": _minute(by_window, None if newest is None else newest - MINUTE),
                "last_minutes": _last_minutes(totals, newest),
            },
        },
        totals_trend=_totals_trend(by_window, newest),
        streams={
            stream: (viewers.get(stream, 0), *sums.get(stream, nothing))  # type: ignore[misc]
            for stream in sorted(shown)
        },
        trends={stream: _trend(snapshot, stream) for stream in shown},
    )


def _minute(by_window: dict[datetime, Row], window: datetime | None) -> dict[str, Any]:
    row = by_window.get(window) if window is not None else None
    return {
        "window_start": window,
        "chat_messages": row["chat_messages"] if row else 0,
        "donations": row["donations"] if row else 0,
        "donations_usd": row["donations_usd"] if row else "0.00",
    }


def _last_minutes(totals: list[Row], newest: datetime | None) -> dict[str, Any]:
    """Return the sums of the last SUM_MINUTES windows, also of those for which the snapshot has no room."""
    rows = [] if newest is None else [row for row in totals if row["window_start"] > newest - SUM_MINUTES * MINUTE]
    return {
        "chat_messages": sum(row["chat_messages"] for row in rows),
        "donations": sum(row["donations"] for row in rows),
        "donations_usd": dollars(sum(cents(row["donations_usd"]) for row in rows)),
    }


def _totals_trend(by_window: dict[datetime, Row], newest: datetime | None) -> dict[str, Any]:
    """Return the sums of the windows before the newest, oldest first; the first is where there are rows at all."""
    windows = sorted(window for window in by_window if window != newest)
    if not windows or newest is None:
        return {"first_window": None, "active_viewers": [], "chat_messages": [], "donations_usd": []}
    span = [windows[0] + number * MINUTE for number in range((newest - windows[0]) // MINUTE)]
    rows = [by_window.get(window) for window in span]
    return {
        "first_window": windows[0],
        "active_viewers": [row["active_viewers"] if row else 0 for row in rows],
        "chat_messages": [row["chat_messages"] if row else 0 for row in rows],
        "donations_usd": [row["donations_usd"] if row else "0.00" for row in rows],
    }


def _trend(snapshot: Snapshot, stream: str) -> tuple[int, ...]:
    if snapshot.newest is None:
        return ()
    found = {row["window_start"]: row["active_viewers"] for row in snapshot.by_stream.get(stream, ())}
    # A window without a row means zero only where the snapshot has the window.
    minutes = min(TREND_MINUTES, snapshot.minutes)
    return tuple(found.get(snapshot.newest - ago * MINUTE, 0) for ago in range(minutes - 1, 0, -1))


def newest_totals(snapshot: Snapshot) -> dict[datetime, Row]:
    """Return the sums over all streams for each window of a snapshot that has rows."""
    found: dict[datetime, Row] = {}
    for row in snapshot.rows:
        total = found.setdefault(
            row["window_start"],
            {"active_viewers": 0, "chat_messages": 0, "donations": 0, "cents": 0, "window_start": row["window_start"]},
        )
        total["active_viewers"] += row["active_viewers"]
        total["chat_messages"] += row["chat_messages"]
        total["donations"] += row["donations"]
        total["cents"] += cents(row["donations_usd"])
    for total in found.values():
        total["donations_usd"] = dollars(total.pop("cents"))
    return found
