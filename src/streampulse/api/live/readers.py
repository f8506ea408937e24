"""Readers of ``/live`` on one worker.

A reader has no queue. A reader that falls behind gets one update over several readings. A reader that takes nothing for
some seconds is cut off. A reader that returns with ``Last-Event-ID`` gets one update with all changes since that id, or
a snapshot if the id is too old. A ``status`` follows, because the numbers may have become stale while it was away.
"""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Set
from datetime import datetime
from typing import Any, Final

import anyio
from prometheus_client import Counter, Gauge
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class with a small name
from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from streampulse.api import queries
from streampulse.api.database import Unavailable
from streampulse.api.live.view import TOTAL_MINUTES, Changes, View, changed, event, full, make_view, newest_totals
from streampulse.api.queries import MINUTE, Row
from streampulse.api.snapshot import Snapshot, Snapshots

#: Time between two signs of life when there is no news, in seconds.
HEARTBEAT_SECONDS: Final = 2.0
#: A reader that takes nothing for this long is cut off, in seconds.
SLOW_SECONDS: Final = 10.0
#: Time for readers to take their farewell when the server stops, in seconds; less than the server's own limit.
_FAREWELL_SECONDS: Final = 5.0
#: Without a reader for this long, no views are computed, in seconds.
_IDLE_SECONDS: Final = 30.0
#: Sums of older windows are read again this often, in seconds, and whenever a window begins.
_TOTALS_SECONDS: Final = 10.0
#: Largest difference between the ids that two workers give to one state of the tables, in microseconds.
_MARGIN_US: Final = 1_000_000
#: Readers that are woken before other requests get a turn.
_BATCH: Final = 50

READERS = Gauge("streampulse_api_live_readers", "Readers of /live, over all workers.", multiprocess_mode="livesum")
CUT_OFF = Counter("streampulse_api_live_cut_off", "Readers of /live that were cut off since they took nothing.")
REFUSED = Counter("streampulse_api_live_refused", "Readers of /live that were refused since there were too many.")


class _Reader:
    __slots__ = ("at", "notice", "seen", "session", "woken")

    def __init__(self, session: str | None) -> None:
        #: Id of the log-in, None for a reader without one.
        self.session = session
        self.woken = asyncio.Event()
        #: Id of the view that the reader knows, 0 for none.
        self.at = 0
        #: The id that a returning reader gave.
        self.seen = 0
        self.notice = 0


class _EventStream(EventSourceResponse):
    """The response of ``/live``. It ends when the reader or the server does."""

    def __init__(self, events: AsyncIterator[bytes], stopping: anyio.Event, release: Callable[[], None]) -> None:
        super().__init__(
            events, ping=0, send_timeout=SLOW_SECONDS, shutdown_event=stopping, shutdown_grace_period=_FAREWELL_SECONDS
        )
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the reader."""
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            CUT_OFF.inc()
        finally:
            self._release()


class Live:
    """The readers of one worker.

    :param most: largest number of readers.
    :param ended: ids of ended log-ins. Their readers are ended too.
    """

    def __init__(self, most: int, ended: Set[str]) -> None:
        self._most = most
        self._ended = ended
        self._admitted = 0
        self._snapshots: Snapshots | None = None
        self._readers: set[_Reader] = set()
        self._wanted_until = float("-inf")
        self._lock = threading.Lock()
        self._totals: list[Row] = []
        self._totals_at = float("-inf")
        self._newest: datetime | None = None
        # Written by the reading thread, under the lock.
        self._view: View | None = None
        self._before = 0
        self._changes: Changes | None = None
        self._update = b""
        # Used by the event loop only.
        self._shown = 0
        self._notice = 0
        self._notice_bytes = b""
        self._stale = False
        self._last_sign = 0.0
        self._merged: dict[tuple[int, int], bytes] = {}
        self.stopping = False

    def start(self, snapshots: Snapshots) -> None:
        """Begin to follow the readings, on the running event loop."""
        self._snapshots = snapshots
        snapshots.listen(self._heard)
        self._asked_to_stop = anyio.Event()
        self._stopper = asyncio.ensure_future(self._stop_when_asked())

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
                self._changes = Changes(since=view.id)
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

    async def respond(self, last_id: int | None, session: str | None) -> EventSourceResponse:
        """Return the response for a new reader.

        :param last_id: the reader's Last-Event-ID.
        :param session: id of the reader's log-in, None without one.
        :raises Unavailable: the server is about to stop, there are too many readers, or there are no numbers yet.
        """
        if self.stopping:
            raise Unavailable("stopping", "this server is about to stop, try again")
        # Counted before the first await, so that readers that arrive together cannot exceed the limit.
        if self._admitted >= self._most:
            REFUSED.inc()
            raise Unavailable("busy", "too many readers, try again later")
        self._admitted += 1
        try:
            if not await self._ready():
                raise Unavailable("timeout", "there are no numbers yet, try again")
        except BaseException:
            self._release()
            raise
        return _EventStream(self._events(last_id, session), self._asked_to_stop, self._release)

    def stop(self) -> None:
        """Tell all readers to come back, and end their answers."""
        self.stopping = True
        self._stopper.cancel()
        self._wake(list(self._readers))

    async def _stop_when_asked(self) -> None:
        await self._asked_to_stop.wait()
        self.stop()

    def _release(self) -> None:
        self._admitted -= 1

    def _heard(self) -> None:
        """Wake the readers when there is something for them."""
        if not self._readers or self._snapshots is None:
            return
        self._wake([reader for reader in self._readers if reader.session in self._ended])
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
            self._wake(list(self._readers))

    def _status(self) -> dict[str, Any]:
        assert self._snapshots is not None  # noqa: S101 - attached before the first reader comes
        failure = self._snapshots.failure
        return {
            # The status that all readers have, so that all of them get its next change.
            "stale": self._stale,
            "age_seconds": round(self._snapshots.age, 3),
            "error": str(failure) if failure is not None else None,
        }

    def _wake(self, readers: list[_Reader], first: int = 0) -> None:
        for reader in readers[first : first + _BATCH]:
            reader.woken.set()
        if first + _BATCH < len(readers):
            # Other requests get a turn between two batches.
            asyncio.get_running_loop().call_soon(self._wake, readers, first + _BATCH)

    async def _ready(self) -> bool:
        """Return whether there is a view; if there was no reader for a while, after the next reading."""
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

    async def _events(self, last_id: int | None, session: str | None) -> AsyncIterator[bytes]:
        """Yield the events of a reader, until the server stops or the reader's log-in is ended."""
        reader = _Reader(session)
        reader.at = self._resumed(last_id)
        reader.seen = (last_id or 0) if reader.at else 0
        self._readers.add(reader)
        READERS.inc()
        try:
            # While there was no reader, the worker did not note whether the numbers are stale.
            self._heard()
            reader.notice = self._notice
            # Random, so that readers do not all come back at once.
            wait_ms = 1000 + random.randrange(2000)  # noqa: S311 - no secret
            piece = b"retry: %d\n\n" % wait_ms + self._news(reader)
            # A returning reader may have got the opposite status before it left.
            piece += event("status", self._status())
            while not self.stopping and session not in self._ended:
                if piece:
                    yield piece
                await reader.woken.wait()
                reader.woken.clear()
                piece = self._news(reader)
            yield piece + event("reconnect", {"retry_ms": wait_ms})
        finally:
            self._readers.discard(reader)
            READERS.dec()

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
