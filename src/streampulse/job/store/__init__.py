"""PostgreSQL as the job uses it: the tables, the ledger and the durable form of the working state.

One transaction commits everything that a batch changes, so the tables, the offsets and the state never disagree. The
position in Kafka is the ledger's: a checkpoint of Spark is only good for the run that made it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import psycopg2
import psycopg2.extensions

from streampulse.core.errors import OperatorError
from streampulse.core.settings import PostgresSettings
from streampulse.job.counting.changes import Changes
from streampulse.job.counting.engine import Engine
from streampulse.job.rows import Rows
from streampulse.job.store.commit import STAGING, one, write_rows
from streampulse.job.store.retention import forget_old
from streampulse.job.store.state import StateTables, position_columns

#: Key of the advisory lock that the one driver holds while it may write.
LOCK_KEY: Final = 0x73_70_6A_6F_62  # "spjob"
_NOTE_TOPIC: Final = "INSERT INTO topics_read (topic_id) VALUES (%s) ON CONFLICT DO NOTHING"


@dataclass(slots=True)
class Batch:
    """What a batch commits besides the changed rows."""

    query_id: str
    batch_id: int
    topic_id: str | None
    dead_letters: dict[str, int]


class Store:
    """The job's connection, its lock, and what it knows of the stored state.

    :param settings: where the database is and who writes.
    :param viewer_timeout_us: see :class:`~streampulse.job.counting.engine.Engine`.
    :param history_days: rows whose window begins more than this many days before the event clock are removed.
    :param ledger_days: entries of the ledger that are older than this are removed, but for the newest.
    """

    def __init__(self, settings: PostgresSettings, viewer_timeout_us: int, history_days: int, ledger_days: int) -> None:
        self._settings = settings
        self._history_us = history_days * 86_400 * 1_000_000
        self._ledger_days = ledger_days
        self._connection: psycopg2.extensions.connection | None = None
        self._state = StateTables(viewer_timeout_us)
        # The topic that is known to be among those that were read.
        self._topic_id: str | None = None

    def open(self) -> None:
        """Connect and become the one writer.

        :raises OperatorError: another driver is the writer.
        :raises psycopg2.OperationalError: the server does not answer.
        """
        self.close()
        connection = psycopg2.connect(**self._settings.connection_arguments("streampulse-job"))
        self._connection = connection
        with connection.cursor() as cursor:
            # A batch that cannot get on must fail and be taken up again, not hang.
            cursor.execute("SET statement_timeout = '60s'; SET lock_timeout = '10s'")
            cursor.execute("SET idle_in_transaction_session_timeout = '60s'")
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_KEY,))
            if not one(cursor)[0]:
                self.close()
                raise OperatorError(
                    "another driver of the job writes to this database: one at a time. "
                    "Look for it: inv status; end the other one, or wait until it has ended"
                )
            cursor.execute(STAGING)
        connection.commit()

    def close(self) -> None:
        """Give up the connection, and with it the lock."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def load(self) -> tuple[Engine, str | None]:
        """Rebuild the working state as of the newest ledger row.

        :returns: the engine, and the id of the topic that the offsets are of (None: nothing was ever committed).
        :raises OperatorError: the state has a format that this release does not read.
        """
        with self._cursor() as cursor:
            loaded = self._state.load(cursor)
        self._end()
        return loaded

    def committed(self, query_id: str, batch_id: int) -> bool:
        """Tell whether a batch is in the ledger."""
        with self._cursor() as cursor:
            cursor.execute("SELECT 1 FROM batch_ledger WHERE query_id = %s AND batch_id = %s", (query_id, batch_id))
            found = cursor.fetchone() is not None
        self._end()
        return found

    def commit(self, batch: Batch, engine: Engine, changes: Changes, accepted: Sequence[Rows]) -> int:
        """Commit a batch: its rows, its offsets, its ledger row and the state's changelog, all or nothing.

        :param accepted: the accepted events, as :meth:`Engine.apply` returned them.
        :returns: how many rows of the tables were written or removed.
        """
        with self._cursor() as cursor:
            rows_written = write_rows(cursor, changes)
            cursor.execute(
                "INSERT INTO batch_ledger (query_id, batch_id, topic_id, accepted, duplicates, dead_letters,"
                " rows_written, format, offsets, clocks, event_clock)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING seq",
                (
                    batch.query_id,
                    batch.batch_id,
                    batch.topic_id,
                    changes.accepted,
                    changes.duplicates,
                    json.dumps(batch.dead_letters),
                    rows_written,
                    *position_columns(engine),
                ),
            )
            seq = int(one(cursor)[0])
            if batch.topic_id is not None and batch.topic_id != self._topic_id:
                cursor.execute(_NOTE_TOPIC, (batch.topic_id,))
            state = self._state.write(cursor, seq, engine, accepted)
        self._end()
        # Only now: what a failed transaction did not do must not be remembered as done.
        self._topic_id = batch.topic_id
        self._state.committed(state)
        return rows_written

    def forget_old(self, event_clock_us: int) -> bool:
        """Remove rows and streams older than the history, and old ledger entries, a bounded piece at a time.

        :returns: whether there is more to remove.
        """
        with self._cursor() as cursor:
            more = forget_old(cursor, event_clock_us, self._history_us, self._ledger_days)
        self._end()
        return more

    def _cursor(self) -> psycopg2.extensions.cursor:
        if self._connection is None:
            raise psycopg2.InterfaceError("not connected")
        return self._connection.cursor()

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.commit()
