"""Answers as bytes: from the snapshot if it holds the numbers, else from the database.

Requests with the same question share one query.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec
from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import Response

from streampulse.api.database import Unavailable
from streampulse.api.questions import Question
from streampulse.api.snapshot import Snapshot

_encode: Final = msgspec.json.Encoder().encode
#: Answers of the snapshot and of the database that are kept, each. The longest answers have some 300 KB.
_MAX_KEPT: Final = 64

ANSWERS: Final = Counter(
    "streampulse_api_answers",
    "Answers with numbers by their source: snapshot (memory), database (a query, or its answer that is kept).",
    ["source"],
)

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Answer(NamedTuple):
    """A body, and its entity tag."""

    body: bytes
    etag: bytes


class Aged(NamedTuple):
    """An answer, the age of its numbers in seconds, and whether they are older than they should be."""

    answer: Answer
    age: float
    stale: bool


def answer(document: dict[str, Any]) -> Answer:
    """Return a document as bytes."""
    body = _encode(document)
    return Answer(body, b'"' + hashlib.blake2b(body, digest_size=9).hexdigest().encode() + b'"')


class ReadyResponse(Response):
    """A response with ready bytes, or 304 if the client has these bytes already."""

    def __init__(self, request: Request, given: Aged, private: bool) -> None:
        """Build the response.

        :param private: whether the answer is only for clients with a key.
        """
        etag = given.answer.etag
        headers = [
            (b"etag", etag),
            (b"cache-control", b"private, no-cache" if private else b"no-cache"),
            (b"x-snapshot-age", b"%.3f" % given.age),
        ]
        if given.stale:
            headers.append((b"x-snapshot-stale", b"true"))
        self.background = None
        if any(
            name == b"if-none-match" and (etag in value or value == b"*") for name, value in request.scope["headers"]
        ):
            self.status_code, self.body = 304, b""
        else:
            self.status_code, self.body = 200, given.answer.body
            headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(self.body))]
        self.raw_headers = headers


class SnapshotAnswers:
    """Answers of the newest snapshot, each encoded once."""

    def __init__(self) -> None:
        self._version = -1
        self._answers: dict[Question, Answer] = {}

    def get(self, question: Question, snapshot: Snapshot) -> Answer | None:
        """Return the answer of a snapshot, or None if the snapshot does not hold all of it."""
        if snapshot.version != self._version:
            self._answers.clear()
            self._version = snapshot.version
        found = self._answers.get(question)
        if found is None:
            document = question.from_snapshot(snapshot)
            if document is None:
                return None
            found = answer(document)
            if len(self._answers) < _MAX_KEPT:
                self._answers[question] = found
        return found


@dataclass(frozen=True)
class _Kept(Generic[Value]):
    value: Value
    asked: float
    #: How long the value serves the next requests, in seconds.
    fresh: float

    @property
    def age(self) -> float:
        return time.monotonic() - self.asked


class Asker(Generic[Key, Value]):
    """Puts questions to the database, each once at a time, and keeps its answers for a short time.

    :param ask: runs the query of a question.
    :param fresh: how long a value serves the next requests at least, in seconds. A value that took longer serves as
        long again as it took, so repeated requests keep one connection busy for half of the time at most.
    :param stale_seconds: greatest age of a value while the database is away.
    :param most: values that are kept.
    """

    def __init__(
        self, ask: Callable[[Key], Awaitable[Value]], fresh: float, stale_seconds: float, most: int = _MAX_KEPT
    ) -> None:
        self._query = ask
        self._fresh = fresh
        self._stale_seconds = stale_seconds
        self._most = most
        self._kept: OrderedDict[Key, _Kept[Value]] = OrderedDict()
        self._under_way: dict[Key, asyncio.Future[_Kept[Value]]] = {}

    async def ask(self, key: Key) -> tuple[Value, float, bool]:
        """Return a value, its age in seconds, and whether it is stale.

        :raises Unavailable: the database does not answer, and no kept value is young enough.
        """
        kept = self._kept.get(key)
        if kept is not None and kept.age <= kept.fresh:
            return kept.value, kept.age, False
        future = self._under_way.get(key)
        if future is None:
            future = asyncio.ensure_future(self._ask(key))
            self._under_way[key] = future
            future.add_done_callback(partial(self._ended, key))
        try:
            # A client that disconnects must not cancel the query for the other clients.
            new = await asyncio.shield(future)
        except Unavailable:
            if kept is not None and kept.age <= self._stale_seconds:
                return kept.value, kept.age, True
            raise
        return new.value, new.age, False

    async def _ask(self, key: Key) -> _Kept[Value]:
        asked = time.monotonic()
        value = await self._query(key)
        return _Kept(value, asked, max(self._fresh, 2 * (time.monotonic() - asked)))

    def _ended(self, key: Key, done: asyncio.Future[_Kept[Value]]) -> None:
        del self._under_way[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept.pop(key, None)
        self._kept[key] = done.result()
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
