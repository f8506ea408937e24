"""The objects that the requests of one worker share, from the server's start to its end."""

import asyncio
from typing import Any, Final, NamedTuple

from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class with a small name
from starlette.requests import Request

from streampulse.api import queries
from streampulse.api.answers import ANSWERS, Aged, Answer, Asker, ReadyResponse, SnapshotAnswers, answer
from streampulse.api.database import Database, Unavailable
from streampulse.api.live.readers import Live
from streampulse.api.queries import Row
from streampulse.api.questions import Question, TopQuestion, ranked
from streampulse.api.snapshot import Snapshot, Snapshots
from streampulse.core.settings import ApiSettings
from streampulse.events import is_internal

_FROM_SNAPSHOT: Final = ANSWERS.labels("snapshot")
_FROM_DATABASE: Final = ANSWERS.labels("database")
#: Time limit of a query for a ranking over a long span, in seconds. A day of 1,000 streams has 1.4 million rows.
SUMS_SECONDS: Final = 10.0
#: Number of spans with kept sums, and number of spans that may wait for their turn.
_SPANS_KEPT: Final = 4
_SPANS_WAITING: Final = 8
#: Rankings of each span that are kept as bytes, some 300 KB each at most.
_RANKINGS_KEPT: Final = 16


class _Sums(NamedTuple):
    """The sums of all streams over a span, and rankings that were made of them."""

    rows: list[Row]
    answers: dict[Question, Answer]


class Runtime:
    """Database, snapshots and readers. The attributes exist between :meth:`start` and :meth:`stop`."""

    database: Database
    snapshots: Snapshots
    live: Live

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._answers = SnapshotAnswers()
        self._spans_waiting = 0
        #: Epoch of log-ins; None before the first reading.
        self.epoch: str | None = None
        #: Ids of ended log-ins, as of the last reading.
        self.ended_sessions: set[str] = set()

    def start(self, database: Database) -> None:
        """Begin to read, on the running event loop."""
        interval = self._settings.snapshot_interval_ms / 1000
        self.database = database
        self.live = Live(self._settings.live_readers, self.ended_sessions)
        self.snapshots = Snapshots(database, interval, self._settings.stale_seconds, self._follow)
        self.live.start(self.snapshots)
        self._stored = Asker(self._query, interval, self._settings.stale_seconds)
        self._sums = Asker(self._query_sums, interval, self._settings.stale_seconds, most=_SPANS_KEPT)
        self._sums_lane = asyncio.Semaphore(1)
        self.snapshots.start(asyncio.get_running_loop())

    def stop(self) -> None:
        """End everything; requests under way end by themselves."""
        self.live.stop()
        self.snapshots.stop()
        self.database.close()

    def _follow(self, cursor: Cursor, snapshot: Snapshot) -> None:
        """Take in a reading, in its transaction."""
        if self._settings.public:
            self.ended_sessions.update(queries.ended_sessions(cursor))
            self.epoch = queries.session_epoch(cursor)
        self.live.follow(cursor, snapshot)

    async def session_epoch(self) -> str:
        """Return the epoch of log-ins. Before the first try to read, wait for it.

        :raises Unavailable: the database has not answered yet.
        """
        if self.epoch is None:
            await self.snapshots.get()
        if self.epoch is None:
            raise self.snapshots.unavailable()
        return self.epoch

    async def accepts(self, session: dict[str, Any]) -> bool:
        """Return whether a log-in is valid. Before the first reading of ended log-ins, none is."""
        try:
            return session.get("epoch") == await self.session_epoch() and session["id"] not in self.ended_sessions
        except Unavailable:
            return False

    async def end_session(self, id_: str, seconds: int) -> None:
        """End a log-in for all workers and hosts. The others learn it with their next reading.

        :param seconds: how long a log-in lasts at most.
        :raises Unavailable: the database does not answer.
        """
        await self.database.run(lambda cursor: queries.end_session(cursor, id_, seconds))
        self.ended_sessions.add(id_)

    async def respond(self, request: Request, question: Question) -> ReadyResponse:
        """Return the response to a question.

        :raises Unavailable: the database does not answer, and nothing in memory is young enough.
        """
        return ReadyResponse(request, await self._ask(question), self._settings.public)

    async def _ask(self, question: Question) -> Aged:
        stream = getattr(question, "stream_id", None)
        if stream is None or not is_internal(stream):
            snapshot = await self.snapshots.get()
            found = self._answers.get(question, snapshot)
            if found is not None:
                _FROM_SNAPSHOT.inc()
                return Aged(found, self.snapshots.age, self.snapshots.stale)
        _FROM_DATABASE.inc()
        if isinstance(question, TopQuestion):
            sums, age, stale = await self._sums.ask(question.minutes)
            found = sums.answers.get(question)
            if found is None:
                found = answer({"rows": ranked(sums.rows, question.by, question.n)})
                if len(sums.answers) >= _RANKINGS_KEPT:
                    sums.answers.clear()
                sums.answers[question] = found
            return Aged(found, age, stale)
        return Aged(*await self._stored.ask(question))

    async def _query(self, question: Question) -> Answer:
        return await self.database.run(lambda cursor: answer(question.from_database(cursor)))

    async def _query_sums(self, minutes: int) -> _Sums:
        """Query the sums over a long span: one span at a time, since each may read a million rows."""
        if self._spans_waiting >= _SPANS_WAITING:
            raise Unavailable("busy", "too many rankings over other spans are being computed")
        self._spans_waiting += 1
        try:
            async with self._sums_lane:
                rows = await self.database.run(lambda cursor: queries.sums(cursor, minutes=minutes), SUMS_SECONDS)
                return _Sums(rows, {})
        finally:
            self._spans_waiting -= 1
