"""The schema of a recount: the job's tables once more, and copies of the present ones to compare them with."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from streampulse.core.errors import OperatorError
from streampulse.core.settings import PostgresSettings
from streampulse.job.store.commit import STAGING, one
from streampulse.job.store.state import LedgerRow, StateTables, newest_row
from streampulse.job.store.takeover import take_over

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streampulse.job.counting.engine import Engine

#: Key of the advisory lock of the one recount.
_LOCK_KEY: Final = 0x73_70_72_65_63  # "sprec"
_TABLES: Final = (
    "stream_metrics_minute", "event_clock", "stream_presence", "batch_ledger", "topics_read", "job_state_snapshot",
    "job_state_delta", "lost_spans", "excluded_records", "dead_letter_groups",
)  # fmt: skip
_DROP: Final = "DROP SCHEMA IF EXISTS streampulse_recount CASCADE"
_FILL: Final = (
    "INSERT INTO streampulse_recount.event_clock DEFAULT VALUES;"
    " INSERT INTO streampulse_recount.lost_spans OVERRIDING SYSTEM VALUE SELECT * FROM public.lost_spans;"
    " INSERT INTO streampulse_recount.excluded_records SELECT * FROM public.excluded_records;"
    " CREATE TABLE streampulse_recount.letters (partition integer, record_offset bigint, reason text, detail bytea,"
    "  key bytea, value bytea, producer text, PRIMARY KEY (partition, record_offset));"
    # Streams of partitions whose log is incomplete: rows are certain before the one time and from the other one on.
    ' CREATE TABLE streampulse_recount.bounds (stream_id text COLLATE "C" PRIMARY KEY, complete_before timestamptz,'
    "  certain_from timestamptz)"
)
#: What a count is compared with: the copies of one moment. The transaction must not be committed: a backend that ends
#: drops its temporary views, and meets the drop of the schema in a deadlock.
VIEWS_OF_COPIES: Final = (
    "CREATE TEMPORARY VIEW present_rows AS SELECT * FROM streampulse_recount.present_rows;"
    " CREATE TEMPORARY VIEW present_viewers AS SELECT * FROM streampulse_recount.present_viewers"
)
#: What drivers count into.
_COUNTED: Final = ("stream_metrics_minute", "event_clock", "stream_presence", "job_state_snapshot", "job_state_delta")
_COPY_LEDGER: Final = (
    "CREATE TEMPORARY TABLE batch_ledger (LIKE public.batch_ledger INCLUDING ALL) ON COMMIT DROP;"
    " INSERT INTO pg_temp.batch_ledger OVERRIDING SYSTEM VALUE"
    "  SELECT kept.* FROM public.batch_ledger AS kept JOIN public.newest_batches USING (seq);"
    " SELECT setval(pg_get_serial_sequence('pg_temp.batch_ledger', 'seq'), max(seq)) FROM pg_temp.batch_ledger"
)
_COPY_STATE: Final = (
    "INSERT INTO streampulse_recount.stream_metrics_minute SELECT * FROM {source}.stream_metrics_minute;"
    " INSERT INTO streampulse_recount.stream_presence SELECT * FROM {source}.stream_presence;"
    " UPDATE streampulse_recount.event_clock SET clock = (SELECT clock FROM {source}.event_clock);"
    " INSERT INTO streampulse_recount.batch_ledger OVERRIDING SYSTEM VALUE"
    "  SELECT * FROM {source}.batch_ledger ORDER BY seq DESC LIMIT 1;"
    " INSERT INTO streampulse_recount.job_state_snapshot SELECT * FROM {source}.job_state_snapshot;"
    " INSERT INTO streampulse_recount.job_state_delta SELECT * FROM {source}.job_state_delta;"
    " SELECT setval(pg_get_serial_sequence('streampulse_recount.batch_ledger', 'seq'), max(seq))"
    "  FROM streampulse_recount.batch_ledger"
)
_COPY: Final = (
    "DROP TABLE IF EXISTS streampulse_recount.present_rows, streampulse_recount.present_viewers;"
    " CREATE TABLE streampulse_recount.present_rows AS SELECT * FROM {source}.stream_metrics_minute;"
    " CREATE TABLE streampulse_recount.present_viewers AS SELECT * FROM {source}.stream_presence"
)
#: Pending exclusions are in force in the recount.
_INCLUDE: Final = (
    "UPDATE streampulse_recount.excluded_records SET pending = false WHERE pending"
    " RETURNING topic_id, partition, generation, first_offset"
)
_REFRESH: Final = (
    "INSERT INTO streampulse_recount.excluded_records AS e SELECT * FROM public.excluded_records WHERE NOT pending"
    " ON CONFLICT (topic_id, partition, generation, first_offset)"
    " DO UPDATE SET last_offset = greatest(e.last_offset, EXCLUDED.last_offset), reason = EXCLUDED.reason"
)


class Entry(NamedTuple):
    """The key of an entry of ``excluded_records``."""

    topic_id: str
    partition: int
    generation: int
    first_offset: int


def connect(settings: PostgresSettings) -> psycopg2.extensions.connection:
    """Return a connection in which transactions are ended by the caller."""
    connection: psycopg2.extensions.connection = psycopg2.connect(
        **settings.connection_arguments("streampulse-recount")
    )
    return connection


@contextmanager
def made(settings: PostgresSettings, *, with_pending: bool) -> Iterator[list[Entry]]:
    """Make the schema, in place of one that was left there, and remove it at the end.

    :param with_pending: have pending exclusions be in force in it.
    :returns: the pending exclusions, which are in force in it.
    :raises OperatorError: another recount is under way.
    """
    with closing(connect(settings)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            # The backend of a recount that has just ended keeps the lock for a moment.
            cursor.execute("SET lock_timeout = '5s'")
            try:
                cursor.execute("SELECT pg_advisory_lock(%s)", (_LOCK_KEY,))
            except psycopg2.errors.LockNotAvailable:
                raise OperatorError("another recount is under way: wait for it, or end it, then inv recount") from None
            cursor.execute("RESET lock_timeout")
            cursor.execute(_DROP)
            cursor.execute("CREATE SCHEMA streampulse_recount")
            for name in _TABLES:
                cursor.execute(f"CREATE TABLE streampulse_recount.{name} (LIKE public.{name} INCLUDING ALL)")
            cursor.execute(_FILL)
            included: list[Entry] = []
            if with_pending:
                cursor.execute(_INCLUDE)
                included = [Entry(*row) for row in cursor]
            try:
                yield included
            finally:
                cursor.execute(_DROP)


def refresh_exclusions(settings: PostgresSettings) -> None:
    """Take over the exclusions that the job has entered since."""
    with closing(connect(settings)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(_REFRESH)


def new_spans(cursor: psycopg2.extensions.cursor) -> bool:
    """Tell whether the job has entered lost spans since the schema was made."""
    cursor.execute(
        "SELECT (SELECT count(*) FROM public.lost_spans) <> (SELECT count(*) FROM streampulse_recount.lost_spans)"
    )
    return bool(one(cursor)[0])


class Moment(NamedTuple):
    """What the job has counted at one moment.

    :param row: how far, as a row of one driver.
    :param seqs: the newest row of the ledger by driver.
    """

    row: LedgerRow
    seqs: dict[int, int]


def copy_state(settings: PostgresSettings, viewer_timeout_us: int) -> Moment:
    """Copy the job's rows and state of one moment, to count on from as one driver.

    :raises OperatorError: the state has a format that this release does not read, or a driver has counted nothing yet.
    """
    with closing(connect(settings)) as connection, connection, connection.cursor() as cursor:
        source, seqs = _of_one_driver(cursor, viewer_timeout_us)
        cursor.execute(_COPY_STATE.format(source=source))
        return Moment(newest_row(cursor), seqs)


def copy_present(settings: PostgresSettings, viewer_timeout_us: int) -> tuple[Engine, Moment]:
    """Copy the present rows of one moment, and return the present state.

    :raises OperatorError: as :func:`copy_state` does.
    """
    with closing(connect(settings)) as connection, connection, connection.cursor() as cursor:
        source, seqs = _of_one_driver(cursor, viewer_timeout_us)
        cursor.execute(_COPY.format(source=source))
        engine, row = StateTables(viewer_timeout_us).load(cursor)
        return engine, Moment(row, seqs)


def _of_one_driver(cursor: psycopg2.extensions.cursor, viewer_timeout_us: int) -> tuple[str, dict[int, int]]:
    """Begin a look at one moment, and return the schema that has the state as one driver's, and the drivers' rows.

    The state of several is put together in temporary tables, which a name without a schema means first.
    """
    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    cursor.execute("SELECT shard, seq, topic_id FROM newest_batches")
    found = cursor.fetchall()
    seqs = {shard: seq for shard, seq, _ in found}
    if len(found) < 2:
        return "public", seqs
    if len({topic_id for _, _, topic_id in found}) > 1:
        raise OperatorError("a driver of the job has not yet counted anything of the topic: wait for its next batch")
    for name in _COUNTED:
        cursor.execute(f"CREATE TEMPORARY TABLE {name} (LIKE public.{name} INCLUDING ALL) ON COMMIT DROP")
        cursor.execute(f"INSERT INTO pg_temp.{name} SELECT * FROM public.{name}")  # noqa: S608 - constants
    cursor.execute(_COPY_LEDGER)
    cursor.execute(STAGING)
    take_over(cursor, 1, 1, viewer_timeout_us)
    return "pg_temp", seqs


def counted_up_to(cursor: psycopg2.extensions.cursor) -> LedgerRow:
    """Return how far all drivers together have counted."""
    cursor.execute("SELECT offsets, clocks, topic_id FROM public.counted_up_to")
    for offsets, clocks, topic_id in cursor:
        return LedgerRow({int(n): at for n, at in offsets.items()}, {int(n): at for n, at in clocks.items()}, topic_id)
    return LedgerRow({}, {})
