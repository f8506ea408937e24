"""Record when commits become visible, over a separate connection."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final

import psycopg2
import psycopg2.extensions

from streampulse.core import postgres
from streampulse.core.errors import OperatorError
from streampulse.core.settings import PostgresSettings
from streampulse.host.measure.match import Commit

#: Polling interval of the ledger in seconds. A commit is seen late by at most this plus the query's time.
POLL_SECONDS: Final = 0.01


class LedgerWatch:
    """Records when each new ledger row is seen, inside the ``with`` block. Waits for an absent server.

    :param settings: the database of the job.
    """

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self._connection: psycopg2.extensions.connection | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._last = 0
        self._reached: dict[int, int] = {}
        #: Rows in the order in which they were seen.
        self.commits: list[Commit] = []

    def __enter__(self) -> "LedgerWatch":
        connection = self._connected()
        ((self._last,),) = postgres.execute(connection, "SELECT coalesce(max(seq), 0) FROM batch_ledger")
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._close()

    def reached(self) -> dict[int, int]:
        """Return the offsets of the newest commit seen, by partition; empty before the first."""
        return dict(self.commits[-1].offsets) if self.commits else {}

    def wait(self, until: "Callable[[LedgerWatch], bool]", seconds: float, what: str) -> float:
        """Wait for a condition on the rows seen, and return the time of the newest commit then.

        :param what: description of the condition, for the message.
        :raises OperatorError: the condition was not met within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while not until(self):
            if time.monotonic() > deadline:
                raise OperatorError(f"not within {seconds:g} s: {what}. Look: inv logs job")
            time.sleep(POLL_SECONDS)
        return self.commits[-1].at if self.commits else time.time()

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                self._look(self._connected())
            except psycopg2.Error:
                self._close()

    def _look(self, connection: psycopg2.extensions.connection) -> None:
        rows = postgres.execute(
            connection, "SELECT seq, offsets FROM batch_ledger WHERE seq > %s ORDER BY seq", (self._last,)
        )
        now = time.time()
        for seq, offsets in rows:
            self._last = int(seq)
            # A row of one of several shards has the offsets of its own partitions only.
            self._reached.update({int(number): int(at) for number, at in offsets.items()})
            self.commits.append(Commit(int(seq), now, dict(self._reached)))

    def _connected(self) -> psycopg2.extensions.connection:
        if self._connection is None:
            self._connection = postgres.connect(self._settings, "streampulse-measure")
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg2.Error):
                self._connection.close()
            self._connection = None
