"""The newest numbers of the tables, read by one thread for all requests of a worker.

The thread reads the newest windows, the newest row of each stream and the viewers in one transaction, up to four times
a second. Requests are answered from the last reading, so a thousand readers cost the database as much as one. While
the identity of PostgreSQL's own snapshot stays the same, nothing was written, and the thread reads no tables.
"""

import asyncio
import logging
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class with a small name

from streampulse.api import queries
from streampulse.api.database import Database, Unavailable
from streampulse.api.queries import Row

log = logging.getLogger(__name__)

#: Windows in a snapshot; more than the default of ten that requests have.
MINUTES: Final = 15
#: Rows of windows at most. With very many streams, a snapshot covers fewer windows.
MAX_ROWS: Final = 20_000
#: Streams in the lists at most; the database answers for the streams after these.
MAX_STREAMS: Final = 1_000
#: A reading older than this is marked as stale, in seconds. Twice the greatest normal age of an answer.
FRESH_SECONDS: Final = 1.0
# Longest rest after a reading that took long.
_MOST_REST_SECONDS: Final = 1.0

READINGS = Counter(
    "streampulse_api_snapshot_readings",
    "Readings of the tables by outcome: changed, unchanged (nothing was written since), failed.",
    ["outcome"],
)
READING_SECONDS = Histogram(
    "streampulse_api_snapshot_reading_seconds",
    "How long a reading of the tables took.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
READ_AT = Gauge(
    "streampulse_api_snapshot_timestamp_seconds",
    "When the tables were last read, or the worker began, in seconds since the epoch; of several workers the one that "
    "is furthest behind.",
    multiprocess_mode="livemin",
)
AGE = Gauge(
    "streampulse_api_snapshot_age_seconds",
    "How old the last reading of the tables was when the next one was due, or the worker where there is none; of "
    "several workers the oldest.",
    multiprocess_mode="livemax",
)
ROWS = Gauge("streampulse_api_snapshot_rows", "Rows of windows in memory.", multiprocess_mode="livemax")


class Listing:
    """The first rows of a list with one row for each stream, in order of their ids.

    :param rows: rows of the list; more than MAX_STREAMS are dropped.
    """

    def __init__(self, rows: list[Row]) -> None:
        self._complete = len(rows) <= MAX_STREAMS
        self._rows = rows[:MAX_STREAMS]
        self._ids = [row["stream_id"] for row in self._rows]

    def page(self, after: str, limit: int) -> list[Row] | None:
        """Return up to ``limit`` rows of the streams after a given one, or None if some of them were dropped."""
        first = bisect_right(self._ids, after) if after else 0
        if self._complete or first + limit <= len(self._rows):
            return self._rows[first : first + limit]
        return None

    def one(self, stream_id: str) -> list[Row] | None:
        """Return the row of one stream, or None if the listing does not have the stream."""
        at = bisect_left(self._ids, stream_id)
        return [self._rows[at]] if at < len(self._ids) and self._ids[at] == stream_id else None


@dataclass(frozen=True)
class Snapshot:
    """The tables at one moment, without the streams whose id begins with ``__``."""

    version: int
    #: Newest window of the whole table, None while there is none.
    newest: datetime | None
    #: Number of windows, the newest included, that ``rows`` has completely.
    minutes: int
    #: Newest window first, by stream inside a window.
    rows: list[Row]
    #: The newest row of each stream.
    latest: Listing
    #: The viewers of each stream.
    states: Listing
    #: When it was read, by the database's clock, in microseconds since the epoch.
    read_at: int
    by_stream: dict[str, list[Row]] = field(repr=False)


def read(cursor: Cursor, version: int, read_at: int) -> Snapshot:
    """Read the tables.

    :param version: number of the reading.
    :param read_at: the database's time of it, in microseconds since the epoch.
    """
    newest, rows, minutes = queries.newest_windows(cursor, minutes=MINUTES, limit=MAX_ROWS)
    latest = Listing(queries.latest(cursor, limit=MAX_STREAMS + 1, after="", stream_id=None))
    states = Listing(queries.state(cursor, limit=MAX_STREAMS + 1, after="", stream_id=None))
    by_stream: dict[str, list[Row]] = {}
    for row in rows:
        by_stream.setdefault(row["stream_id"], []).append(row)
    return Snapshot(version, newest, minutes, rows, latest, states, read_at, by_stream)


class Snapshots:
    """Reads the tables again and again, on a thread of its own, and hands out the last reading.

    :param database: where to read.
    :param interval: seconds between the starts of two readings.
    :param stale_seconds: how old an answer may become while the database is away.
    :param also: called in the reading's transaction with the cursor and the snapshot, on the reading thread, after
        each reading that found something new, and whenever :meth:`hurry` asked for it.
    """

    def __init__(
        self,
        database: Database,
        interval: float,
        stale_seconds: float,
        also: Callable[[Cursor, Snapshot], None] | None = None,
    ) -> None:
        self._database = database
        self._interval = interval
        self._stale_seconds = stale_seconds
        self._also = also
        self._identity: str | None = None
        self._ended = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapshot", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: list[Callable[[], None]] = []
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._tries = 0
        # Written by the reading thread, each in one step; read by the event loop.
        self.current: Snapshot | None = None
        self.checked = float("-inf")
        self.failure: Unavailable | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to read; listeners are called on this event loop."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """Stop reading. The thread ends by itself, at the latest with its statement."""
        self._ended.set()
        self._hurry.set()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call a function on the event loop after each try to read, whether it succeeded or not."""
        self._listeners.append(listener)

    def hurry(self) -> None:
        """Read again at once, also when nothing has changed."""
        self._identity = None
        self._hurry.set()

    @property
    def age(self) -> float:
        """How long ago the tables were found to be as the snapshot says, in seconds."""
        return time.monotonic() - self.checked

    @property
    def stale(self) -> bool:
        """Whether an answer from the snapshot has to be marked as stale."""
        return self.failure is not None or self.age > FRESH_SECONDS

    def usable(self) -> Snapshot | None:
        """Return the snapshot if an answer may be made of it, else None."""
        snapshot = self.current
        if snapshot is None:
            return None
        limit = max(self._stale_seconds, FRESH_SECONDS if self.failure is None else 0.0)
        return snapshot if self.age <= limit else None

    async def get(self) -> Snapshot:
        """Return the snapshot. Before the first try to read, wait for it.

        :raises Unavailable: there is none, or it is too old; the text says why.
        """
        if self.current is None and self.failure is None:
            await self.next(self._database.deadline_seconds)
        snapshot = self.usable()
        if snapshot is None:
            raise self.unavailable()
        return snapshot

    def unavailable(self) -> Unavailable:
        """Return a new error that says why there is no answer."""
        if self.failure is None:
            return Unavailable("timeout", "PostgreSQL has not answered in time")
        return Unavailable(self.failure.cause, str(self.failure))

    async def next(self, seconds: float) -> None:
        """Wait for the end of a try to read that has not begun yet, or for some seconds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._tries + 1 if self.current is None else self._tries + 2, future))
        try:
            await asyncio.wait_for(future, seconds)
        except TimeoutError:
            return
        finally:
            self._waiting = [(number, waiting) for number, waiting in self._waiting if waiting is not future]

    def _run(self) -> None:
        # Before the first reading, the age is counted from here.
        begun = time.monotonic()
        READ_AT.set(time.time())
        while not self._ended.is_set():
            started = time.monotonic()
            self._hurry.clear()
            AGE.set(max(0.0, started - max(self.checked, begun)))
            self._try(started)
            took = time.monotonic() - started
            self._tell()
            # A slow reading is followed by as long a rest, so it does not fill the database's time. The rest is
            # bounded, because a reading that met a hung server says nothing about the next one.
            self._hurry.wait(max(self._interval - took, min(took, _MOST_REST_SECONDS)))
        self._database.forget()

    def _try(self, started: float) -> None:
        try:
            outcome = self._database.call(self._read)
        except Unavailable as error:
            self._failed(error)
            return
        except Exception:
            log.exception("unexpected error while reading the tables")
            self._failed(Unavailable("internal", "internal error, see the API's log"))
            return
        if outcome is not None:
            self.current = outcome
            ROWS.set(len(outcome.rows))
        READINGS.labels("unchanged" if outcome is None else "changed").inc()
        READING_SECONDS.observe(time.monotonic() - started)
        READ_AT.set(time.time() - (time.monotonic() - started))
        self.checked = started
        self.failure = None

    def _failed(self, error: Unavailable) -> None:
        READINGS.labels("failed").inc()
        self._identity = None
        self.failure = error

    def _read(self, cursor: Cursor) -> Snapshot | None:
        """Return a new snapshot, or None while nothing was written since the last one."""
        identity, read_at = queries.identity(cursor)
        if identity == self._identity and self.current is not None:
            return None
        snapshot = read(cursor, (self.current.version if self.current else 0) + 1, read_at)
        if self._also is not None:
            self._also(cursor, snapshot)
        self._identity = identity
        return snapshot

    def _tell(self) -> None:
        if self._loop is None or self._ended.is_set():
            return
        try:
            self._loop.call_soon_threadsafe(self._told)
        except RuntimeError:
            # The event loop is closed: the worker was ended at once.
            self._ended.set()

    def _told(self) -> None:
        self._tries += 1
        for number, future in self._waiting:
            if number <= self._tries and not future.done():
                future.set_result(None)
        for listener in self._listeners:
            listener()
