"""The swap: rows, state, position and exclusions of a recount take the place of the job's, in one transaction.

The job holds a shared lock from before a batch's letters until the batch's commit. The swap takes it alone, so it falls
between two batches. It ends the job's producer, so that no letter of a batch that was decided before can come later.
The job finds another row in the ledger than its own, ends, and is started again on the new state. A swap that is killed
has changed nothing.
"""

import uuid
from collections.abc import Sequence
from typing import Final

import psycopg2.extensions
from psycopg2.extras import execute_values

from streampulse.job.store.commit import SWAP_KEY, one, timestamp
from streampulse.recount.schema import Entry

#: Limit for each statement, and for the wait for the job's batch, in seconds.
STATEMENT_SECONDS: Final = 600
LOCK_SECONDS: Final = 120
_ROWS: Final = """
DELETE FROM public.stream_metrics_minute AS kept USING row_differences AS gone
 WHERE kept.window_start = gone.window_start AND kept.stream_id = gone.stream_id;
INSERT INTO public.stream_metrics_minute
 (window_start, stream_id, chat_messages, donations, donations_usd, joins, leaves, unique_viewers, active_viewers)
 SELECT window_start, stream_id, new_chat_messages, new_donations, new_donations_usd, new_joins, new_leaves,
  new_unique_viewers, new_active_viewers
 FROM row_differences WHERE stays ORDER BY window_start, stream_id;
DELETE FROM public.stream_presence AS kept USING presence_differences AS gone WHERE kept.stream_id = gone.stream_id;
INSERT INTO public.stream_presence (stream_id, active_viewers, last_event)
 SELECT stream_id, new_active_viewers, new_last_event FROM presence_differences WHERE stays ORDER BY stream_id
"""
_STATE: Final = """
DELETE FROM public.job_state_snapshot; DELETE FROM public.job_state_delta;
INSERT INTO public.job_state_snapshot SELECT * FROM streampulse_recount.job_state_snapshot;
INSERT INTO public.job_state_delta SELECT * FROM streampulse_recount.job_state_delta;
-- The next row of the ledger comes after the rows that the state was written with. A sequence only goes forward.
SELECT setval(pg_get_serial_sequence('public.batch_ledger', 'seq'), greatest(
 (SELECT max(seq) FROM public.batch_ledger), (SELECT max(seq) FROM streampulse_recount.batch_ledger)))
"""
# The position is that of the job: both counted up to the same records.
_LEDGER: Final = """
INSERT INTO public.batch_ledger
 (query_id, batch_id, topic_id, offsets, positions, format, clocks, event_clock, rows_written)
SELECT %(id)s, 0, old.topic_id, old.offsets,
 (SELECT jsonb_object_agg(key, value) FROM public.newest_batches, jsonb_each(positions)),
 new.format, new.clocks, new.event_clock,
 (SELECT count(*) FROM row_differences) + (SELECT count(*) FROM presence_differences)
FROM public.counted_up_to AS old,
 (SELECT * FROM streampulse_recount.batch_ledger ORDER BY seq DESC LIMIT 1) AS new
RETURNING seq
"""


def wait_for_the_job(cursor: psycopg2.extensions.cursor) -> None:
    """Wait for the end of the job's batch, and keep the job from the next one until the transaction ends."""
    cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'; SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (SWAP_KEY,))


def swap(
    cursor: psycopg2.extensions.cursor,
    clock_us: int | None,
    letters_end: int,
    due: Sequence[tuple[int, int]],
    included: Sequence[Entry],
) -> None:
    """Write everything, after the differences were found in the same transaction.

    :param clock_us: the event clock of the recount.
    :param letters_end: the offset after the last dead letter that was sent.
    :param due: partition and offset of the records whose letters are due.
    :param included: the exclusions that were pending, and become effective.
    """
    recount = str(uuid.uuid4())
    cursor.execute(_ROWS)
    cursor.execute("UPDATE public.event_clock SET clock = %s", (timestamp(clock_us),))
    cursor.execute(_STATE)
    cursor.execute(_LEDGER, {"id": recount})
    seq = one(cursor)[0]
    execute_values(
        cursor,
        "UPDATE public.excluded_records AS e SET pending = false FROM (VALUES %s) AS i"
        " (topic_id, partition, generation, first_offset) WHERE (e.topic_id, e.partition, e.generation, e.first_offset)"
        " = (i.topic_id, i.partition, i.generation, i.first_offset)",
        included,
    ) if included else None
    cursor.execute(
        "INSERT INTO public.recounts (id, seq, topic_id, letters_end)"
        " SELECT %s, seq, topic_id, %s FROM public.batch_ledger WHERE seq = %s",
        (recount, letters_end, seq),
    )
    for number, offset in due:
        cursor.execute(
            "INSERT INTO public.due_letters (recount, partition, record_offset, reason, detail, key, value, producer)"
            " SELECT %s, partition, record_offset, reason, detail, key, value, producer"
            " FROM streampulse_recount.letters WHERE partition = %s AND record_offset = %s",
            (recount, number, offset),
        )
