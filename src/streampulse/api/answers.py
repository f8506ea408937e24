"""Answers as bytes: from the snapshot where it has what was asked for, else from the database.

What is asked for is one of a few frozen dataclasses. Each knows how to answer itself from a snapshot, at once, and
with a query. The same question is put to the database once at a time, however many ask it, and an answer serves for as
long as a snapshot would.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from bisect import bisect_left
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class with a small name

from streampulse.api import queries
from streampulse.api.database import Database, Unavailable
from streampulse.api.queries import MINUTE, Ranking, Row
from streampulse.api.snapshot import Snapshot
from streampulse.events import is_internal

_encode: Final = msgspec.json.Encoder().encode
# Answers of the database that are kept for whoever asks the same next.
_MAX_KEPT: Final = 512
_MAX_KEPT_BYTES: Final = 16 * 2**20


class Answer(NamedTuple):
    """A body, and what identifies it."""

    body: bytes
    etag: bytes


class Question(Protocol):
    """What a request asks for."""

    def from_snapshot(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """Return the answer, or None where the snapshot has not all of it."""

    def from_database(self, cursor: Cursor) -> dict[str, Any]:
        """Return the answer by a query."""


def answer(document: dict[str, Any]) -> Answer:
    """Return a document as bytes."""
    body = _encode(document)
    return Answer(body, b'"' + hashlib.blake2b(body, digest_size=9).hexdigest().encode() + b'"')


def _named(snapshot: Snapshot, stream_id: str, minutes: int) -> list[Row] | None:
    """Return the rows of one stream in the last windows, newest first; None where the snapshot cannot know."""
    if is_internal(stream_id) or minutes > snapshot.minutes:
        return None
    if snapshot.newest is None:
        return []
    first = snapshot.newest - (minutes - 1) * MINUTE
    return [row for row in snapshot.by_stream.get(stream_id, ()) if row["window_start"] >= first]


def _since(snapshot: Snapshot, minutes: int) -> int:
    """Return how many rows of the snapshot lie in the last windows."""
    if snapshot.newest is None:
        return 0
    first = snapshot.newest - (minutes - 1) * MINUTE
    rows = snapshot.rows
    low, high = 0, len(rows)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if rows[middle]["window_start"] >= first else (low, middle)
    return low


@dataclass(frozen=True)
class MetricsQuestion:
    """``/metrics``."""

    minutes: int
    limit: int
    stream_id: str | None

    def from_snapshot(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """Return the newest rows where the snapshot has them."""
        if self.stream_id is not None:
            rows = _named(snapshot, self.stream_id, self.minutes)
        else:
            count = _since(snapshot, self.minutes)
            rows = snapshot.rows[: min(count, self.limit)]
            if self.minutes > snapshot.minutes and len(rows) < self.limit:
                rows = None
        if rows is None:
            return None
        return {"latest_window_start": snapshot.newest, "rows": rows[: self.limit]}

    def from_database(self, cursor: Cursor) -> dict[str, Any]:
        """Ask for the newest rows."""
        last, rows = queries.metrics(cursor, minutes=self.minutes, limit=self.limit, stream_id=self.stream_id)
        return {"latest_window_start": last, "rows": rows}


@dataclass(frozen=True)
class HistoryQuestion:
    """``/metrics/history``."""

    minutes: int
    limit: int
    stream_id: str | None

    def from_snapshot(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """Return the oldest rows of the span where the snapshot has all of it."""
        if self.stream_id is not None:
            found = _named(snapshot, self.stream_id, self.minutes)
            return None if found is None else {"rows": found[::-1][: self.limit]}
        if self.minutes > snapshot.minutes:
            return None
        rows = snapshot.rows[: _since(snapshot, self.minutes)]
        # Stable, so that within a window they stay ordered by stream.
        return {"rows": sorted(rows, key=lambda row: row["window_start"])[: self.limit]}

    def from_database(self, cursor: Cursor) -> dict[str, Any]:
        """Ask for the oldest rows of the span."""
        rows = queries.history(cursor, minutes=self.minutes, limit=self.limit, stream_id=self.stream_id)
        return {"rows": rows}


@dataclass(frozen=True)
class LatestQuestion:
    """``/metrics/latest``."""

    limit: int
    after: str
    stream_id: str | None

    def from_snapshot(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """Return the newest row of each stream where the snapshot has those streams."""
        if self.stream_id is not None:
            row = _one(self.stream_id, snapshot.latest, snapshot.latest_ids)
            return None if row is None else {"rows": [row]}
        rows = snapshot.page_of_latest(self.after, self.limit)
        return None if rows is None else {"rows": rows}

    def from_database(self, cursor: Cursor) -> dict[str, Any]:
        """Ask for the newest row of each stream."""
        return {"rows": queries.latest(cursor, limit=self.limit, after=self.after, stream_id=self.stream_id)}


@dataclass(frozen=True)
class StateQuestion:
    """``/state``."""

    limit: int
    after: str
    stream_id: str | None

    def from_snapshot(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """Return who is present where the snapshot has those streams."""
        if self.stream_id is not None:
            row = _one(self.stream_id, snapshot.states, snapshot.state_ids)
            return None if row is None else {"rows": [row]}
        rows = snapshot.page_of_states(self.after, self.limit)
        return None if rows is None else {"rows": rows}

    def from_database(self, cursor: Cursor) -> dict[str, Any]:
        """Ask who is present."""
        return {"rows": queries.state(cursor, limit=self.limit, after=self.after, stream_id=self.stream_id)}


def _one(stream_id: str, rows: list[Row], ids: list[str]) -> Row | None:
    """Return a stream's row of a sorted list; None where it is not there, which does not mean that there is none."""
    at = bisect_left(ids, stream_id)
    return rows[at] if at < len(ids) and ids[at] == stream_id else None


_SUMS: Final = ("chat_messages", "donations", "joins", "leaves")
_MAXIMA: Final = ("unique_viewers", "active_viewers")


def cents(text: str) -> int:
    """Return an amount with two decimals in cents."""
    return int(text.replace(".", ""))


def dollars(amount: int) -> str:
    """Return cents as an amount with two decimals."""
    return f"{amount // 100}.{amount % 100:02d}"


def ranked(rows: list[Row], by: Ranking, n: int) -> list[Row]:
    """Return the first ``n`` streams of some rows: sums, for viewers maxima; ties by stream."""
    streams: dict[str, Row] = {}
    for row in rows:
        stream = streams.get(row["stream_id"])
        if stream is None:
            streams[row["stream_id"]] = {
                "stream_id": row["stream_id"],
                "chat_messages": row["chat_messages"],
                "donations": row["donations"],
                "donations_usd": cents(row["donations_usd"]),
                "joins": row["joins"],
                "leaves": row["leaves"],
                "unique_viewers": row["unique_viewers"],
                "active_viewers": row["active_viewers"],
            }
            continue
        for name in _SUMS:
            stream[name] += row[name]
        stream["donations_usd"] += cents(row["donations_usd"])
        for name in _MAXIMA:
            stream[name] = max(stream[name], row[name])
    first = sorted(streams.values(), key=lambda stream: (-stream[by], stream["stream_id"]))[:n]
    return [stream | {"donations_usd": dollars(stream["donations_usd"])} for stream in first]


@dataclass(frozen=True)
class TopQuestion:
    """``/streams/top``."""

    minutes: int
    by: Ranking
    n: int

    def from_snapshot(self, snapshot: Snapshot) -> dict[str, Any] | None:
        """Rank the snapshot's rows where it has all windows."""
        if self.minutes > snapshot.minutes:
            return None
        return {"rows": ranked(snapshot.rows[: _since(snapshot, self.minutes)], self.by, self.n)}

    def from_database(self, cursor: Cursor) -> dict[str, Any]:
        """Ask for the ranking."""
        return {"rows": queries.top(cursor, minutes=self.minutes, by=self.by, n=self.n)}


class _Kept(NamedTuple):
    answer: Answer
    asked: float


class Asker:
    """Puts questions to the database, each once at a time, and keeps answers for as long as a snapshot would serve.

    :param database: whom to ask.
    :param fresh: how long an answer serves for the next who asks the same, in seconds.
    :param stale_seconds: how old an answer may become while the database is away.
    """

    def __init__(self, database: Database, fresh: float, stale_seconds: float) -> None:
        self._database = database
        self._fresh = fresh
        self._stale_seconds = stale_seconds
        self._kept: OrderedDict[Question, _Kept] = OrderedDict()
        self._kept_bytes = 0
        self._under_way: dict[Question, asyncio.Future[_Kept]] = {}

    async def ask(self, question: Question) -> tuple[Answer, float, bool]:
        """Return the answer, its age in seconds, and whether it is stale.

        :raises Unavailable: the database does not answer, and no answer is kept that is young enough.
        """
        kept = self._kept.get(question)
        if kept is not None and time.monotonic() - kept.asked <= self._fresh:
            return kept.answer, time.monotonic() - kept.asked, False
        future = self._under_way.get(question)
        if future is None:
            future = asyncio.ensure_future(self._ask(question))
            self._under_way[question] = future
            future.add_done_callback(partial(self._ended, question))
        try:
            # Whoever goes away does not take the answer from the others.
            new = await asyncio.shield(future)
        except Unavailable:
            if kept is not None and time.monotonic() - kept.asked <= self._stale_seconds:
                return kept.answer, time.monotonic() - kept.asked, True
            raise
        return new.answer, time.monotonic() - new.asked, False

    async def _ask(self, question: Question) -> _Kept:
        asked = time.monotonic()
        return _Kept(await self._database.run(lambda cursor: answer(question.from_database(cursor))), asked)

    def _ended(self, question: Question, done: asyncio.Future[_Kept]) -> None:
        del self._under_way[question]
        if done.cancelled() or done.exception() is not None:
            return
        self._forget(question)
        self._kept[question] = done.result()
        self._kept_bytes += len(done.result().answer.body)
        while self._kept and (len(self._kept) > _MAX_KEPT or self._kept_bytes > _MAX_KEPT_BYTES):
            self._forget(next(iter(self._kept)))

    def _forget(self, question: Question) -> None:
        kept = self._kept.pop(question, None)
        if kept is not None:
            self._kept_bytes -= len(kept.answer.body)
