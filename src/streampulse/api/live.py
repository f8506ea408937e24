"""``/live``: server-sent events, one reading of the tables for all readers.

The first event, ``snapshot``, has everything that the page draws. Each ``update`` after it has what changed since the
reader's last event, as absolute values. An event's id is the database's time of its reading, in microseconds, so it
means the same to every worker: whoever comes back with ``Last-Event-ID`` gets one update with all that changed since,
or a snapshot where that is too long ago. Then comes a ``status``: whether the numbers are stale may have changed, too.

A reader has no queue. Whoever is behind gets one update over several readings; whoever does not read at all for some
seconds is cut off.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from prometheus_client import Counter, Gauge
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class with a small name
from starlette.types import Receive, Scope, Send

from streampulse.api import queries
from streampulse.api.answers import cents, dollars
from streampulse.api.queries import MINUTE, Row
from streampulse.api.snapshot import Snapshot, Snapshots

#: Windows that the table's sums span, as /streams/top does by default; fewer with more streams than a snapshot has room
#: for.
SUM_MINUTES: Final = 10
#: Windows of a stream's trend line; with more streams than a snapshot has room for, as many as it has.
TREND_MINUTES: Final = 15
#: Windows of the trend of the totals.
TOTAL_MINUTES: Final = 60
#: Streams that are first by viewers, by chat or by donations: what a reader gets of each ranking.
RANKED: Final = 50
#: A stream's last changes are known for this long: how late a reader may come back and go on, in seconds.
MEMORY_SECONDS: Final = 300
#: Without news, a sign of life this often, in seconds.
HEARTBEAT_SECONDS: Final = 2.0
#: A reader that takes nothing for this long is cut off, in seconds.
SLOW_SECONDS: Final = 10.0
#: With no reader for this long nothing is read for them, in seconds.
_IDLE_SECONDS: Final = 30.0
#: Sums of older windows are read again this often, in seconds, and whenever a window begins.
_TOTALS_SECONDS: Final = 10.0
#: Readings of two workers may be told apart by less than their clocks: a resume reaches back this much further.
_MARGIN_US: Final = 1_000_000
# Bytes that the kernel keeps for a reader (it takes twice as much room).
_KERNEL_BUFFER: Final = 65_536
# Readers that are woken at once, before other requests get a turn.
_BATCH: Final = 50

READERS = Gauge("streampulse_api_live_readers", "Readers of /live, over all workers.", multiprocess_mode="livesum")
CUT_OFF = Counter("streampulse_api_live_cut_off", "Readers of /live that were cut off since they took nothing.")
REFUSED = Counter("streampulse_api_live_refused", "Readers of /live that were refused since there were too many.")

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class View:
    """What the page draws, at one reading."""

    id: int
    head: dict[str, Any]
    totals_trend: dict[str, Any]
    #: stream: viewers now, and chat messages, donations and cents in the last SUM_MINUTES windows.
    streams: dict[str, tuple[int, int, int, int]]
    #: stream: viewers at the end of each of the last windows but the newest, oldest first.
    trends: dict[str, tuple[int, ...]]


@dataclass
class _Changes:
    """When, by the id of the view, each stream's numbers or trend last changed or went away."""

    since: int
    numbers: dict[str, int] = field(default_factory=dict)
    trends: dict[str, int] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    totals_trend: int = 0

    def note(self, old: View, new: View) -> None:
        """Take in what is new; forget what is long ago."""
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


def changed(view: View, changes: _Changes, since: int) -> bytes:
    """Return the event that has what changed after a view with an id."""
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
    """Compute what the page draws.

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


class _Reader:
    __slots__ = ("at", "notice", "seen", "woken")

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        #: The view that it knows, 0 for none; and what it said that it has seen, where it came back.
        self.at = 0
        self.seen = 0
        self.notice = 0


class Live:
    """The readers of one worker.

    :param most: readers at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._snapshots: Snapshots | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readers: set[_Reader] = set()
        self._wanted_until = float("-inf")
        self._lock = threading.Lock()
        self._totals: list[Row] = []
        self._totals_at = float("-inf")
        self._newest: datetime | None = None
        # Made by the reading thread, under the lock.
        self._view: View | None = None
        self._before = 0
        self._changes: _Changes | None = None
        self._update = b""
        # The event loop's.
        self._shown = 0
        self._notice = 0
        self._notice_bytes = b""
        self._stale = False
        self._last_sign = 0.0
        self._merged: dict[tuple[int, int], bytes] = {}
        self.stopping = False

    def attach(self, snapshots: Snapshots, loop: asyncio.AbstractEventLoop) -> None:
        """Say whose readings the readers follow, and on which event loop they are served."""
        self._snapshots = snapshots
        self._loop = loop
        snapshots.listen(self._heard)

    # On the reading thread --------------------------------------------------------------------------------------------

    def follow(self, cursor: Cursor, snapshot: Snapshot) -> None:
        """Take in a reading, in its transaction; does nothing while there are no readers."""
        if time.monotonic() > self._wanted_until:
            with self._lock:
                self._view = self._changes = None
            return
        view = make_view(cursor, snapshot, self._sums(cursor, snapshot))
        with self._lock:
            if self._view is None or self._changes is None or self._view.id >= view.id:
                self._changes = _Changes(since=view.id)
                self._before = 0
                self._update = b""
            else:
                self._changes.note(self._view, view)
                self._before = self._view.id
                self._update = changed(view, self._changes, self._before)
            self._view = view

    def _sums(self, cursor: Cursor, snapshot: Snapshot) -> list[Row]:
        if snapshot.newest is None:
            self._totals = []
            return []
        if snapshot.newest != self._newest or time.monotonic() - self._totals_at > _TOTALS_SECONDS:
            self._totals = queries.totals(cursor, last=snapshot.newest, minutes=TOTAL_MINUTES)
            self._totals_at = time.monotonic()
            self._newest = snapshot.newest
        recent = newest_totals(snapshot)
        first = snapshot.newest - (snapshot.minutes - 1) * MINUTE
        return [row for row in self._totals if row["window_start"] < first] + list(recent.values())

    # On the event loop ------------------------------------------------------------------------------------------------

    def stop_soon(self) -> None:
        """Call :meth:`stop` from a signal handler or another thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Tell all readers to come back, and end their answers."""
        self.stopping = True
        self._wake()

    def _heard(self) -> None:
        """Wake the readers when there is something for them."""
        if not self._readers or self._snapshots is None:
            return
        now = time.monotonic()
        self._wanted_until = now + _IDLE_SECONDS
        view = self._view
        news = view is not None and view.id != self._shown
        stale = self._snapshots.stale
        if stale != self._stale or (not news and now - self._last_sign >= HEARTBEAT_SECONDS):
            self._stale = stale
            self._notice += 1
            self._notice_bytes = event("status", self._status())
            news = True
        if news:
            self._last_sign = now
            self._shown = view.id if view is not None else 0
            self._merged.clear()
            self._wake()

    def _status(self) -> dict[str, Any]:
        assert self._snapshots is not None  # noqa: S101 - attached before the first reader comes
        failure = self._snapshots.failure
        return {
            # As all readers were told, so that each change from there is told to all.
            "stale": self._stale,
            "age_seconds": round(self._snapshots.age, 3),
            "error": str(failure) if failure is not None else None,
        }

    def _wake(self) -> None:
        self._wake_some(list(self._readers), 0)

    def _wake_some(self, readers: list[_Reader], first: int) -> None:
        for reader in readers[first : first + _BATCH]:
            reader.woken.set()
        if first + _BATCH < len(readers):
            # Others get a turn in between.
            asyncio.get_running_loop().call_soon(self._wake_some, readers, first + _BATCH)

    async def ready(self) -> bool:
        """Return whether there is something to show; where nobody has read for a while, after the next reading."""
        assert self._snapshots is not None  # noqa: S101 - attached before the first reader comes
        await self._snapshots.get()
        if time.monotonic() > self._wanted_until or self._view is None:
            self._wanted_until = time.monotonic() + _IDLE_SECONDS
            self._snapshots.hurry()
            for _ in range(3):
                await self._snapshots.next(5)
                if self._view is not None:
                    break
                self._snapshots.hurry()
        return self._view is not None

    def full_house(self) -> bool:
        """Return whether no more readers are let in."""
        if len(self._readers) >= self._most:
            REFUSED.inc()
            return True
        return False

    async def serve(self, scope: Scope, receive: Receive, send: Send, last_id: int | None) -> None:
        """Send events until the reader goes away, is cut off, or is told to come back.

        :param last_id: what the reader gave as Last-Event-ID.
        """
        reader = _Reader()
        reader.at = self._resumed(last_id)
        reader.seen = (last_id or 0) if reader.at else 0
        _narrow(scope)
        self._readers.add(reader)
        READERS.inc()
        # Where nobody has read for a while, whether the numbers are stale is not known yet.
        self._heard()
        reader.notice = self._notice
        gone = asyncio.ensure_future(_gone(receive, reader.woken))
        try:
            await self._send_all(reader, scope, send, gone)
        finally:
            self._readers.discard(reader)
            READERS.dec()
            gone.cancel()

    async def _send_all(self, reader: _Reader, scope: Scope, send: Send, gone: asyncio.Future[None]) -> None:
        # Not all at once, when they were told to come back together.
        wait_ms = 1000 + random.randrange(2000)  # noqa: S311 - no secret
        piece = b"retry: %d\n\n" % wait_ms
        piece += self._news(reader)
        # Always: who comes back may have heard before it went that the numbers are stale, or that they are not.
        piece += event("status", self._status())
        while True:
            if self.stopping:
                piece += event("reconnect", {"retry_ms": wait_ms})
            if piece:
                try:
                    async with asyncio.timeout(SLOW_SECONDS):
                        await send({"type": "http.response.body", "body": piece, "more_body": not self.stopping})
                except TimeoutError:
                    CUT_OFF.inc()
                    _abort(scope)
                    return
            if self.stopping or gone.done():
                return
            await reader.woken.wait()
            reader.woken.clear()
            if gone.done():
                return
            piece = self._news(reader)

    def _resumed(self, last_id: int | None) -> int:
        """Return the id after which a reader's news begin: 0 for everything."""
        with self._lock:
            if last_id is None or self._view is None or self._changes is None:
                return 0
            reach = max(last_id - _MARGIN_US, 1)
            return reach if self._changes.since <= reach and last_id <= self._view.id + _MARGIN_US else 0

    def _news(self, reader: _Reader) -> bytes:
        news = b""
        with self._lock:
            view, changes = self._view, self._changes
            if view is not None and changes is not None and view.id != reader.at and view.id > reader.seen:
                if reader.at == 0 or reader.at < changes.since:
                    news = self._merge(0, view.id, lambda: full(view))
                elif reader.at == self._before:
                    news = self._update
                else:
                    news = self._merge(reader.at, view.id, lambda: changed(view, changes, reader.at))
                reader.at = view.id
        if reader.notice != self._notice:
            reader.notice = self._notice
            news += self._notice_bytes
        return news

    def _merge(self, since: int, id_: int, make: Callable[[], bytes]) -> bytes:
        key = (since, id_)
        if key not in self._merged:
            if len(self._merged) > 32:
                self._merged.clear()
            self._merged[key] = make()
        return self._merged[key]


async def _gone(receive: Receive, woken: asyncio.Event) -> None:
    """End when the client does."""
    while (await receive())["type"] != "http.disconnect":
        pass
    woken.set()


def _transport(scope: Scope) -> asyncio.Transport | None:
    """Return the connection, where the server is ours."""
    transport: asyncio.Transport | None = scope.get("extensions", {}).get("streampulse.transport")
    return transport


def _narrow(scope: Scope) -> None:
    """Give the connection a small buffer: the kernel's own would let a reader fall megabytes behind."""
    transport = _transport(scope)
    if transport is not None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)


def _abort(scope: Scope) -> None:
    """Cut the connection, without waiting for what was not taken."""
    transport = _transport(scope)
    if transport is not None:
        transport.abort()
