"""PostgreSQL as the job uses it: the tables, the ledger and the durable form of the working state.

One transaction commits everything that a batch changes, so the tables, the offsets and the state never disagree. The
position in Kafka is the ledger's: a checkpoint of Spark is only good for the run that made it.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Final

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from streampulse.core.errors import OperatorError
from streampulse.core.settings import PostgresSettings
from streampulse.job.counting.changes import Changes
from streampulse.job.counting.engine import Engine
from streampulse.job.positions import Border, LastRecord
from streampulse.job.rows import DeadLetter, DueLetter, Exclusion, Rows
from streampulse.job.shards import ALONE, LOCK_KEY, Shard
from streampulse.job.store import exclusions
from streampulse.job.store.commit import STAGING, SWAP_KEY, one, timestamp, write_rows
from streampulse.job.store.exclusions import Exclusions
from streampulse.job.store.groups import LetterGroup, write_groups
from streampulse.job.store.retention import forget_entries, forget_old, thin_ledger
from streampulse.job.store.state import LedgerRow, Span, StateTables, accepted_ids, last_record, position_columns
from streampulse.job.store.takeover import present_shards, take_over

# After this many removed rows of the ledger there are probably more.
_MUCH_THINNED: Final = 1_000
log = logging.getLogger(__name__)
#: The schema that a recount counts into.
SCHEMA: Final = "streampulse_recount"
# The drivers before may need this long until they have ended.
_TAKE_OVER_SECONDS: Final = 60.0
_NOTE_TOPIC: Final = "INSERT INTO topics_read (topic_id) VALUES (%s) ON CONFLICT DO NOTHING"
_NOTE_SPAN: Final = (
    "INSERT INTO lost_spans (topic_id, partition, kind, first_offset, next_offset, epoch, clock)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s)"
)


@dataclass(slots=True)
class Batch:
    """What a batch commits besides the changed rows."""

    query_id: str
    batch_id: int
    topic_id: str | None
    dead_letters: dict[str, int]
    #: When reading it began and when its records were decoded, in seconds since the epoch.
    begun_s: float | None = None
    decoded_s: float | None = None
    groups: Sequence[LetterGroup] = ()
    #: By partition the last record that was read, None where the log has none any more.
    last: dict[int, LastRecord | None] = field(default_factory=dict)
    spans: Sequence[Span] = ()
    excluded: Sequence[Exclusion] = ()


class SupersededError(OperatorError):
    """Another number of drivers counts the topic now. Trying again does not help."""


class Store:
    """The job's connection, its lock, and what it knows of the stored state.

    :param settings: where the database is and who writes.
    :param viewer_timeout_us: see :class:`~streampulse.job.counting.engine.Engine`.
    :param history_days: rows whose window begins more than this many days before the event clock are removed.
    :param ledger_days: entries of the ledger that are older than this are removed, but for the newest.
    :param schema: the schema of a recount, whose one writer the caller is; empty: the job's.
    :param shard: whose rows it writes.
    """

    def __init__(
        self,
        settings: PostgresSettings,
        viewer_timeout_us: int,
        history_days: int,
        ledger_days: int,
        schema: str = "",
        shard: Shard = ALONE,
    ) -> None:
        self._settings = settings
        self._schema = schema
        self.shard = shard
        self._timeout_us = viewer_timeout_us
        #: The ledger row of the state that was loaded, or of the batch that was committed since.
        self.seq = 0
        self._history_us = history_days * 86_400 * 1_000_000
        self._ledger_days = ledger_days
        self._connection: psycopg2.extensions.connection | None = None
        self._state = StateTables(viewer_timeout_us, shard)
        # The topic that is known to be among those that were read.
        self._topic_id: str | None = None
        # The ledger row up to which older rows are thinned.
        self._thinned_seq = 0
        # The last record that was read of each partition.
        self._last: dict[int, LastRecord] = {}
        # By topic and partition where spans were lost, in the order in which they were noted.
        self._lost: dict[tuple[str, int], list[Border]] = {}

    def open(self, fence: Callable[[int], int] | None = None) -> None:
        """Connect and become the one writer of the shard.

        :param fence: called where the newest row is one of another number of shards, with that number, before their
            state is taken over: no letter of theirs comes after that. Returns the topic's number of partitions.
        :raises OperatorError: another driver is the writer.
        :raises SupersededError: the number is another one, and ``fence`` is missing.
        :raises psycopg2.OperationalError: the server does not answer.
        """
        self.close()
        connection = psycopg2.connect(**self._settings.connection_arguments("streampulse-job"))
        self._connection = connection
        with connection.cursor() as cursor:
            # A batch that cannot get on must fail and be taken up again, not hang.
            cursor.execute("SET statement_timeout = '60s'; SET lock_timeout = '10s'")
            cursor.execute("SET idle_in_transaction_session_timeout = '60s'")
            if self._schema:
                # No other schema: a table that is missing here must not be looked for among the job's.
                cursor.execute("SELECT set_config('search_path', %s, false)", (self._schema,))
            else:
                self._lock(connection, cursor, fence)
            cursor.execute(STAGING)
        connection.commit()

    def _lock(
        self,
        connection: psycopg2.extensions.connection,
        cursor: psycopg2.extensions.cursor,
        fence: Callable[[int], int] | None,
    ) -> None:
        try:
            if self.shard.count > 1:
                self._share(connection, cursor, fence)
            # Waits for lock_timeout: the backend of a connection that has just ended keeps the lock for a moment.
            cursor.execute("SELECT pg_advisory_lock(%s)", (self.shard.lock_key,))
            if self.shard.count == 1:
                self._take_over(connection, cursor, fence)
        except psycopg2.errors.LockNotAvailable:
            self.close()
            raise OperatorError(
                "another driver of the job writes to this database: one at a time. "
                "Look for it: inv status; end the other one, or wait until it has ended"
            ) from None

    def _share(
        self,
        connection: psycopg2.extensions.connection,
        cursor: psycopg2.extensions.cursor,
        fence: Callable[[int], int] | None,
    ) -> None:
        """Keep drivers of another number of shards out, with the others of this number. One of them takes over."""
        deadline = time.monotonic() + _TAKE_OVER_SECONDS
        while True:
            # Not for lock_timeout: another one that takes over has the lock for longer.
            cursor.execute("SELECT pg_try_advisory_lock_shared(%s)", (LOCK_KEY,))
            if one(cursor)[0]:
                if present_shards(cursor) == self.shard.count:
                    return
                cursor.execute("SELECT pg_advisory_unlock_shared(%s), pg_try_advisory_lock(%s)", (LOCK_KEY, LOCK_KEY))
                if one(cursor)[1] or fence is None:
                    self._take_over(connection, cursor, fence)
                    cursor.execute("SELECT pg_advisory_lock_shared(%s), pg_advisory_unlock(%s)", (LOCK_KEY, LOCK_KEY))
                    return
            connection.commit()
            if time.monotonic() > deadline:
                raise psycopg2.errors.LockNotAvailable
            time.sleep(0.2)

    def _take_over(
        self,
        connection: psycopg2.extensions.connection,
        cursor: psycopg2.extensions.cursor,
        fence: Callable[[int], int] | None,
    ) -> None:
        """Take over from another number of shards, where the newest row is theirs. The caller has the lock alone."""
        before = present_shards(cursor)
        connection.commit()
        if before == self.shard.count:
            return
        if fence is None:
            self.close()
            raise SupersededError(
                f"the ledger has a row of {before} drivers, and this is one of {self.shard.count}:"
                " the number was changed (job_shards)"
            )
        partitions = fence(before)
        started = time.monotonic()
        cursor.execute(STAGING)
        take_over(cursor, self.shard.count, partitions, self._timeout_us)
        connection.commit()
        log.info("%d shards took over from %d in %.2f s", self.shard.count, before, time.monotonic() - started)

    def close(self) -> None:
        """Give up the connection, and with it the lock."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def load(self) -> tuple[Engine, LedgerRow]:
        """Rebuild the working state as of the newest ledger row.

        :returns: the engine, and that row; without a topic where nothing was ever committed.
        :raises OperatorError: the state has a format that this release does not read.
        """
        with self._cursor() as cursor:
            engine, newest = self._state.load(cursor)
            cursor.execute(
                "SELECT topic_id, partition, first_offset, (extract(epoch FROM clock) * 1000000)::bigint"
                " FROM lost_spans WHERE kind = 'lost' ORDER BY seq"
            )
            self._lost = {}
            for topic_id, number, first, clock_us in cursor:
                self._lost.setdefault((topic_id, number), []).append(Border(first, clock_us))
        self.end()
        self._last, self.seq = newest.last, newest.seq
        return engine, newest

    def hold(self) -> None:
        """Keep a recount from being swapped in until the next commit.

        :raises OperatorError: one was swapped in, or another driver has committed.
        """
        with self._cursor() as cursor:
            if not self._schema:
                cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", (SWAP_KEY,))
            cursor.execute("SELECT coalesce(max(seq), 0) FROM batch_ledger WHERE shard = %s", (self.shard.number,))
            newest = one(cursor)[0]
        if newest != self.seq:
            self.end()
            raise OperatorError(
                f"the ledger is at row {newest} where {self.seq} was committed: a recount was swapped in;"
                " reading goes on from there after a restart"
            )

    def event_clock(self) -> int | None:
        """Return the newest event clock that any shard has used, in microseconds; None: there is none, or one shard."""
        if self.shard.count == 1:
            return None
        with self._cursor() as cursor:
            cursor.execute("SELECT (extract(epoch FROM max(clock)) * 1000000)::bigint FROM event_clock")
            newest: int | None = one(cursor)[0]
        return newest

    def due_letters(self) -> list[DueLetter]:
        """Return the dead letters that are due by a recount and are not yet sent, in the order of their ids.

        They are the first shard's.
        """
        if self.shard.number:
            return []
        with self._cursor() as cursor:
            cursor.execute(
                "SELECT id, recount::text, partition, record_offset, reason, detail, key, value, producer"
                " FROM due_letters ORDER BY id"
            )
            found = []
            for number, recount, partition, offset, reason, detail, key, value, producer in cursor:
                source = partition, offset, reason, bytes(detail).decode()
                # A column of bytes comes as a view of them.
                letter = DeadLetter(*source, key and bytes(key), value and bytes(value), producer)
                found.append(DueLetter(number, recount, letter))
        self.end()
        return found

    def forget_due_letters(self, letters: Sequence[DueLetter]) -> None:
        """Remove letters that were sent."""
        with self._cursor() as cursor:
            cursor.execute("DELETE FROM due_letters WHERE id = ANY(%s)", ([each.number for each in letters],))
        self.end()

    def lost(self, topic_id: str | None) -> dict[int, list[int]]:
        """Return by partition the first offset of each lost span of a topic, in the order in which they were noted."""
        return {number: [each.offset for each in found] for number, found in self.borders(topic_id).items()}

    def borders(self, topic_id: str | None) -> dict[int, list[Border]]:
        """Return by partition where spans of a topic were lost, in the order in which they were noted."""
        return {number: found for (topic, number), found in self._lost.items() if topic == topic_id}

    def exclude(self, topic_id: str, entries: Sequence[Exclusion]) -> None:
        """Commit exclusions by themselves, before the batch that has their records."""
        with self._cursor() as cursor:
            exclusions.enter(cursor, topic_id, self.lost(topic_id), entries)
        self.end()

    def exclusions(self, topic_id: str) -> dict[int, list[Exclusion]]:
        """Return by partition the records of a topic's present generation that are excluded, in offset order."""
        with self._cursor() as cursor:
            found = exclusions.load(cursor, topic_id, self.lost(topic_id))
        self.end()
        return found

    def exclusions_ahead(self, topic_id: str, out: Mapping[int, int]) -> Exclusions:
        """Return the excluded records of a topic's present generation, with those that operators will enter.

        :param out: by partition the offset up to which dead letters are out.
        """
        ahead = Exclusions(self._settings, topic_id, self.exclusions(topic_id), self.lost(topic_id), out)
        # What an operator entered while no job ran takes effect before anything is read.
        ahead.ask()
        return ahead

    def newest_span_s(self) -> float | None:
        """Return when the newest span was noted, in seconds since the epoch, None where there is none."""
        with self._cursor() as cursor:
            cursor.execute("SELECT extract(epoch FROM max(noted_at))::float8 FROM lost_spans")
            newest: float | None = one(cursor)[0]
        self.end()
        return newest

    def earlier_positions(self, topic_id: str, partition: int) -> Iterator[LastRecord]:
        """Yield the records before a partition's positions in the ledger, the newest first."""
        connection = self._connection
        if connection is None:
            raise psycopg2.InterfaceError("not connected")
        with connection.cursor("positions") as cursor:
            cursor.execute(
                "SELECT positions -> %(number)s FROM batch_ledger WHERE topic_id = %(topic)s"
                " AND positions ? %(number)s ORDER BY seq DESC",
                {"number": str(partition), "topic": topic_id},
            )
            try:
                for (entry,) in cursor:
                    yield last_record(entry)
            finally:
                cursor.close()
                self.end()

    def accepted_ids(self, partition: int, first: int) -> dict[int, bytes]:
        """Return the ids of a partition's accepted events that the state holds, by offset, from an offset on."""
        with self._cursor() as cursor:
            ids = dict(accepted_ids(cursor, partition, first))
        self.end()
        return ids

    def committed(self, query_id: str, batch_id: int) -> bool:
        """Tell whether a batch is in the ledger."""
        with self._cursor() as cursor:
            cursor.execute("SELECT 1 FROM batch_ledger WHERE query_id = %s AND batch_id = %s", (query_id, batch_id))
            found = cursor.fetchone() is not None
        self.end()
        return found

    def commit(
        self, batch: Batch, engine: Engine, changes: Changes, accepted: Sequence[Rows], *, snapshot_now: bool = False
    ) -> int:
        """Commit a batch: its rows, its offsets, its ledger row and the state's changelog, all or nothing.

        :param accepted: the accepted events, as :meth:`Engine.apply` returned them.
        :param snapshot_now: write a snapshot of the state in any case.
        :returns: how many rows of the tables were written or removed.
        """
        read = self._last | batch.last
        last = {number: record for number, record in read.items() if record is not None}
        lost = {key: list(found) for key, found in self._lost.items()}
        for span in batch.spans:
            if span.kind == "lost":
                border = Border(span.first_offset, span.clock_us)
                lost.setdefault((span.topic_id, span.partition), []).append(border)
        generations = {number: len(found) for (topic, number), found in lost.items() if topic == batch.topic_id}
        with self._cursor() as cursor:
            rows_written = write_rows(cursor, changes, self.shard.number)
            for span in batch.spans:
                cursor.execute(_NOTE_SPAN, (*astuple(span)[:-1], timestamp(span.clock_us)))
            cursor.execute(
                "INSERT INTO batch_ledger (query_id, batch_id, topic_id, accepted, duplicates, dead_letters,"
                " rows_written, begun_at, decoded_at, shard, shards, format, offsets, clocks, event_clock, positions)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, to_timestamp(%s), to_timestamp(%s), %s, %s, %s, %s, %s, %s, %s)"
                " RETURNING seq",
                (
                    batch.query_id,
                    batch.batch_id,
                    batch.topic_id,
                    changes.accepted,
                    changes.duplicates,
                    json.dumps(batch.dead_letters),
                    rows_written,
                    batch.begun_s,
                    batch.decoded_s,
                    self.shard.number,
                    self.shard.count,
                    self.shard.format,
                    *position_columns(engine, last, generations),
                ),
            )
            seq = int(one(cursor)[0])
            write_groups(cursor, batch.groups)
            if batch.topic_id is not None:
                exclusions.enter(cursor, batch.topic_id, self.lost(batch.topic_id), batch.excluded)
            if batch.topic_id is not None and batch.topic_id != self._topic_id:
                cursor.execute(_NOTE_TOPIC, (batch.topic_id,))
            state = self._state.write(cursor, seq, engine, accepted, snapshot_now=snapshot_now)
        self.end()
        # Only now: what a failed transaction did not do must not be remembered as done.
        self._topic_id, self.seq = batch.topic_id, seq
        self._last, self._lost = last, lost
        self._state.committed(state)
        return rows_written

    def forget_old(self, event_clock_us: int) -> bool:
        """Remove rows and streams older than the history, and old ledger entries, a bounded piece at a time.

        :returns: whether there is more to remove.
        """
        with self._cursor() as cursor:
            more = forget_entries(cursor, self.shard, self._ledger_days)
            # The tables are one for all shards.
            if self.shard.number == 0:
                more = forget_old(cursor, event_clock_us, self._history_us) or more
            thinned = thin_ledger(cursor, self._thinned_seq, self.shard)
        self.end()
        more = more or thinned - self._thinned_seq > _MUCH_THINNED
        self._thinned_seq = thinned
        return more

    def _cursor(self) -> psycopg2.extensions.cursor:
        if self._connection is None:
            raise psycopg2.InterfaceError("not connected")
        return self._connection.cursor()

    def end(self) -> None:
        """End the transaction, also one of :meth:`hold` without a batch."""
        if self._connection is not None:
            self._connection.commit()
