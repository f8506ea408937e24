"""What the requests of one worker share, from the server's start to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Scope

from streampulse.api.answers import Answer, Asker, Question, answer
from streampulse.api.database import Database
from streampulse.api.live import Live
from streampulse.api.snapshot import Snapshots
from streampulse.core.settings import ApiSettings


class Runtime:
    """Database, snapshots, questions and readers. The parts are there between :meth:`start` and :meth:`stop`."""

    database: Database
    snapshots: Snapshots
    asker: Asker
    live: Live

    def __init__(self, settings: ApiSettings) -> None:
        self.settings = settings
        #: Set by the middleware that serves known requests.
        self.remember: Callable[[Scope, Question], None] = lambda _scope, _question: None

    def start(self, database: Database) -> None:
        """Begin to read, on the running event loop."""
        interval = self.settings.snapshot_interval_ms / 1000
        loop = asyncio.get_running_loop()
        self.database = database
        self.live = Live(self.settings.live_readers)
        self.snapshots = Snapshots(database, interval, self.settings.stale_seconds, self.live.follow)
        self.live.attach(self.snapshots, loop)
        self.asker = Asker(database, interval, self.settings.stale_seconds)
        self.snapshots.start(loop)

    def stop(self) -> None:
        """End everything; requests under way end by themselves."""
        self.live.stop()
        self.snapshots.stop()
        self.database.close()

    async def ask(self, question: Question, scope: Scope) -> tuple[Answer, float, bool]:
        """Return the answer to a question, its age in seconds, and whether it is stale.

        :raises Unavailable: the database does not answer, and nothing is in memory that is young enough.
        """
        if not _names_internal(question):
            snapshot = await self.snapshots.get()
            document = question.from_snapshot(snapshot)
            if document is not None:
                self.remember(scope, question)
                return answer(document), self.snapshots.age, self.snapshots.stale
        return await self.asker.ask(question)


def _names_internal(question: Any) -> bool:
    return str(getattr(question, "stream_id", None) or "").startswith("__")
