"""The batch ledger, read with the read-only role: the job's progress and its dead letters."""

import contextlib
import json
import logging
import select
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg2
import psycopg2.extensions

from streampulse.core import postgres
from streampulse.core.errors import one_line
from streampulse.core.settings import PostgresSettings
from streampulse.probe.part import Unreadable

log = logging.getLogger(__name__)

_NEWEST: Final = """
    SELECT seq, offsets, topic_id, extract(epoch FROM committed_at)::float8 FROM counted_up_to
"""
# Read in pieces, so that no statement takes long.
_PIECE: Final = 20_000
_LETTERS: Final = f"""
    SELECT max(seq), coalesce(sum(letters.number::bigint), 0)::bigint FROM (
        SELECT seq, dead_letters FROM batch_ledger WHERE seq > %(seq)s AND committed_at > to_timestamp(%(since)s)
        ORDER BY seq LIMIT {_PIECE}
    ) AS piece LEFT JOIN LATERAL jsonb_each_text(piece.dead_letters) AS letters(reason, number) ON true
"""  # noqa: S608 - constants only
# Written also without changes, so that a re-created ledger is noticed after a restart as well.
_KEEP_SECONDS: Final = 60.0


class Entry(NamedTuple):
    """The newest ledger row. ``offsets`` holds the next offset to commit by partition."""

    seq: int
    offsets: Mapping[int, int]
    topic_id: str | None
    #: In seconds since the epoch, by the database's clock.
    committed_at: float


class Reading(NamedTuple):
    """One reading of the ledger.

    ``entry`` is None while the ledger is empty, ``dead_letters`` is the total ever written, and ``at`` is the time of
    the query on the monotonic clock.
    """

    at: float
    entry: Entry | None
    dead_letters: int


class Ledger:
    """Reads the ledger over one connection, which is reopened after every failure.

    :param settings: the database and the read-only role.
    :param patience: limit for one statement, connecting included, in seconds.
    :param kept: file that keeps the dead-letter count over a restart; None: it is not kept.
    """

    def __init__(self, settings: PostgresSettings, patience: float, kept: Path | None) -> None:
        found = postgres.arguments(settings, "streampulse-probe", statement_seconds=patience, read_only=True)
        # Asynchronous, so that a server that hangs while its kernel still acknowledges packets times out as well.
        self._arguments = {**found, "async_": True}
        self._patience = patience
        self._connection: psycopg2.extensions.connection | None = None
        self._letters = DeadLetters(kept)

    def read(self) -> Reading:
        """Read the newest row and the rows added since the last call.

        :raises Unreadable: the server does not answer in time, or the table is missing.
        """
        at = time.monotonic()
        try:
            found = self._query(_NEWEST, {})
            entry = None
            if found:
                seq, offsets, topic_id, committed_at = found[0]
                entry = Entry(
                    int(seq), {int(number): int(at) for number, at in offsets.items()}, topic_id, float(committed_at)
                )
                self._count(entry)
        except psycopg2.Error as error:
            self.close()
            raise Unreadable(one_line(error)) from None
        return Reading(at, entry, self._letters.total)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            with contextlib.suppress(psycopg2.Error):
                self._connection.close()
            self._connection = None

    def _count(self, newest: Entry) -> None:
        letters = self._letters
        if newest.seq < letters.seq:
            # The tables were re-created or restored: the count keeps its value.
            letters.begin_again()
        while letters.seq < newest.seq:
            ((seq, number),) = self._query(_LETTERS, {"seq": letters.seq, "since": letters.since})
            # An empty result means that the remaining rows were counted before the ledger was restored.
            letters.add(int(number), newest.seq if seq is None else int(seq))
        letters.reached(newest)

    def _query(self, statement: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        deadline = time.monotonic() + self._patience
        if self._connection is None:
            self._connection = psycopg2.connect(**self._arguments)
            self._wait(deadline)
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            self._wait(deadline)
            return cursor.fetchall()

    def _wait(self, deadline: float) -> None:
        connection = self._connection
        assert connection is not None  # noqa: S101 - made by the caller
        while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
            reading = [connection] if state == psycopg2.extensions.POLL_READ else []
            writing = [connection] if state == psycopg2.extensions.POLL_WRITE else []
            ready = select.select(reading, writing, [], max(0.0, deadline - time.monotonic()))
            if not any(ready):
                raise psycopg2.OperationalError(f"no answer within {self._patience:g} s")


class DeadLetters:
    """Number of dead letters ever written, by the ledger's rows, of which the job removes old ones.

    The topic's end offset cannot replace it: transaction markers take offsets too.

    :param file: keeps the number, and the row up to which it counts, over a restart; None: it is not kept.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._kept_at = float("-inf")
        self._newest_at = 0.0
        #: The number, the row up to which it counts, and the time before which rows are skipped.
        self.total = 0
        self.seq = 0
        self.since = 0.0
        self._restore()

    def begin_again(self) -> None:
        """Count the ledger from its beginning, skipping rows as old as those already counted."""
        self.seq, self.since = 0, self._newest_at

    def add(self, number: int, seq: int) -> None:
        """Count the dead letters of the rows up to one."""
        self.total += number
        self.seq = seq
        if number:
            self._kept_at = float("-inf")

    def reached(self, newest: Entry) -> None:
        """Record the newest row as counted, and save the state now or a little later."""
        self._newest_at, self.since = newest.committed_at, 0.0
        now = time.monotonic()
        if self._file is None or now - self._kept_at < _KEEP_SECONDS:
            return
        document = {"seq": self.seq, "committed_at": self._newest_at, "dead_letters": self.total}
        written = self._file.with_suffix(".new")
        try:
            written.write_text(json.dumps(document), encoding="utf-8")
            written.replace(self._file)
        except OSError as error:
            log.warning("the number of dead letters is not kept", extra={"fields": {"error": one_line(error)}})
        self._kept_at = now

    def _restore(self) -> None:
        if self._file is None or not self._file.exists():
            return
        try:
            document = json.loads(self._file.read_text(encoding="utf-8"))
            found = int(document["seq"]), float(document["committed_at"]), int(document["dead_letters"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the number of dead letters starts again", extra={"fields": {"error": one_line(error)}})
        else:
            self.seq, self._newest_at, self.total = found


class LatestReading:
    """The newest reading, passed from the reading thread to its users."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._begun = float("-inf")
        self._reading: Reading | None = None

    def put(self, begun: float, reading: Reading | None) -> None:
        """Publish the result of a read, None for a failure.

        :param begun: start of the read on the monotonic clock.
        """
        with self._changed:
            self._begun, self._reading = begun, reading
            self._changed.notify_all()

    def get(self, max_age: float) -> Reading | None:
        """Return the last result, None if the read failed or is older than ``seconds``."""
        with self._changed:
            return self._reading if time.monotonic() - self._begun <= max_age else None

    def since(self, moment: float, patience: float) -> Reading | None:
        """Wait for a read that began at a moment or later, and return its result; None without one."""
        with self._changed:
            self._changed.wait_for(lambda: self._begun >= moment, patience)
            return self._reading if self._begun >= moment else None
