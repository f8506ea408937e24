"""``streampulse recount``: count the history again from the oldest record in Kafka, and swap the result in."""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

import psycopg2
import psycopg2.extensions
from kafka.errors import KafkaError

from streampulse.core.errors import OperatorError, one_line
from streampulse.core.kafka import Log, Topic
from streampulse.core.settings import CountingSettings, KafkaSettings, PostgresSettings
from streampulse.job.counting.state import present
from streampulse.job.dead_letters import DeadLetters
from streampulse.job.shards import Shard
from streampulse.job.store import Store
from streampulse.job.store.commit import STAGING, one, timestamp
from streampulse.job.store.state import LedgerRow
from streampulse.job.store.takeover import present_shards, take_over
from streampulse.oracle.command import Progress
from streampulse.recount import ANSWER_SECONDS, NOTHING, compare, in_background, schema
from streampulse.recount import swap as swapping
from streampulse.recount.compare import Differences
from streampulse.recount.count import Recount
from streampulse.recount.letters import SentLetters

#: The job goes on while the recount counts. A recount has caught up when this many records are left, or fewer than the
#: job counts in the time of one round.
_CAUGHT_UP_RECORDS: Final = 20_000
#: How often the swap waits for the job to commit a batch whose letters are out, and how long, in seconds.
_TRIES: Final = 10
_PAUSE_SECONDS: Final = 3.0
#: The tables themselves, to compare with, in place of copies.
_TABLES: Final = (
    "CREATE TEMPORARY VIEW present_rows AS SELECT * FROM public.stream_metrics_minute;"
    " CREATE TEMPORARY VIEW present_viewers AS SELECT * FROM public.stream_presence"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse recount``."""
    parser.add_argument("--dry-run", action="store_true", help="only say what would change")


def run(arguments: argparse.Namespace) -> int:
    """Count, print what changes, swap, and return 0.

    :raises OperatorError: Kafka or PostgreSQL does not answer. Nothing was changed.
    """
    shown = Progress()
    recount(
        *in_background(),
        dry_run=arguments.dry_run,
        progress=lambda count: shown(f"recount  counted {count:,} records"),
        say=_say,
    )
    shown.done()
    return 0


def recount(
    kafka: KafkaSettings,
    postgres: PostgresSettings,
    counting: CountingSettings,
    *,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Differences:
    """Count the history again, say what would change, and swap it in.

    :param dry_run: swap nothing.
    :param progress: called with the number of records so far.
    :param say: called with each line of the outcome.
    :returns: what would change, or was changed.
    :raises OperatorError: Kafka or PostgreSQL does not answer, or the log changed. Nothing was changed.
    """
    try:
        with (
            schema.made(postgres, with_pending=True) as included,
            closing(Recount(kafka, postgres, counting, progress)) as counted,
        ):
            return _Run(kafka, postgres, counting, included, counted, say).run(dry_run)
    except psycopg2.Error as error:
        raise OperatorError(
            f"PostgreSQL at {postgres.host}:{postgres.port}: {one_line(error)}. Nothing was changed (inv doctor)"
        ) from None
    except KafkaError as error:
        raise OperatorError(f"Kafka at {kafka.bootstrap_servers}: {one_line(error)} (inv doctor)") from None


class _Run:
    """One recount, from the schema that was made to the swap."""

    def __init__(
        self,
        kafka: KafkaSettings,
        postgres: PostgresSettings,
        counting: CountingSettings,
        included: list[schema.Entry],
        counted: Recount,
        say: Callable[[str], None],
    ) -> None:
        self._kafka = kafka
        self._postgres = postgres
        self._counting = counting
        self._included = included
        self._counted = counted
        self._say = say
        self._timeout_us = counting.viewer_timeout_seconds * 1_000_000

    def run(self, dry_run: bool) -> Differences:
        started = time.monotonic()
        topic = self._topic()
        engine, (row, seqs) = schema.copy_present(self._postgres, self._timeout_us)
        self._shards = len(seqs)
        self._check(row, topic)
        with closing(schema.connect(self._postgres)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM public.topics_read")
            topics = one(cursor)[0]
        self._counted.begin(topic, present(engine), topics)
        self._sent = SentLetters(
            self._kafka,
            dict(topic.starts),
            self._counted.store.lost(topic.topic_id),
            self._counted.first_stamps_ms if topics > 1 else None,
        )
        self._partitions = len(topic.starts)
        self._topic_id = topic.topic_id
        self._catch_up(row)
        found = self._compare()
        self._say_all(found, time.monotonic() - started)
        if not found.any() and not self._included:
            self._say(NOTHING)
        elif not dry_run:
            self._swap()
        return found

    def _topic(self) -> Log:
        with Topic(self._kafka, "streampulse-recount", ANSWER_SECONDS) as reader:
            return reader.log(settled=True)

    def _check(self, row: LedgerRow, topic: Log) -> None:
        if row.topic_id is None:
            raise OperatorError("the job has committed no batch yet: there is nothing to count again (inv status)")
        if row.topic_id != topic.topic_id:
            raise OperatorError(
                f"{self._kafka.topic} was made again since the newest ledger row: wait for the job's next batch "
                "(inv logs job), then inv recount"
            )

    def _newest(self) -> LedgerRow:
        """Return the job's newest ledger row, with its exclusions taken over."""
        with closing(schema.connect(self._postgres)) as connection, connection, connection.cursor() as cursor:
            row = schema.counted_up_to(cursor)
            self._check_spans(cursor)
        schema.refresh_exclusions(self._postgres)
        return row

    def _check_spans(self, cursor: psycopg2.extensions.cursor) -> None:
        if schema.new_spans(cursor):
            raise OperatorError("Kafka lost records while they were counted. Nothing was changed. Again: inv recount")

    def _catch_up(self, row: LedgerRow) -> None:
        """Count until little is left of what the job has counted."""
        while True:
            before = self._counted.records
            self._counted.count(row.offsets)
            if self._counted.records - before < _CAUGHT_UP_RECORDS:
                return
            row = self._newest()

    def _compare(self) -> Differences:
        """Count up to one moment of the job, and compare with its rows and state of that moment."""
        engine, (row, _) = schema.copy_present(self._postgres, self._timeout_us)
        schema.refresh_exclusions(self._postgres)
        self._counted.count(row.offsets)
        self._counted.finish(row.clocks)
        self._sent.read()
        with closing(schema.connect(self._postgres)) as connection, connection.cursor() as cursor:
            found, _ = self._find(cursor, row, schema.VIEWS_OF_COPIES)
        added = compare.viewer_differences(present(engine), self._counted.present())
        found.viewers_added, found.viewers_removed = added
        return found

    def _find(
        self, cursor: psycopg2.extensions.cursor, row: LedgerRow, old: str
    ) -> tuple[Differences, list[tuple[int, int]]]:
        gaps, clocks = self._counted.gaps, self._counted.clocks()
        newest_us = max(clocks.values(), default=None)
        cursor.execute(old)
        found = compare.find(cursor, newest_us, self._counting.history_days, gaps, self._partitions)
        found.clocks = list(compare.clock_differences(row.clocks, clocks))
        cursor.execute("SELECT coalesce(max(letters_end), 0) FROM public.recounts WHERE topic_id = %s", (row.topic_id,))
        earlier = one(cursor)[0]
        due, found.letters_overruled = compare.letter_differences(cursor, self._sent, row.offsets, gaps, earlier)
        found.letters_due = len(due)
        return found, due

    def _swap(self) -> None:
        """Swap, when the letters of no batch are out before its rows are committed."""
        for _ in range(_TRIES):
            self._catch_up(self._newest())
            if self._try():
                return
            # The job was ended in the middle of a batch. It commits that batch at its next start.
            time.sleep(_PAUSE_SECONDS)
        raise OperatorError(
            "the job has sent letters of a batch that it does not commit: see inv logs job, inv doctor. "
            "Nothing was changed"
        )

    def _try(self) -> bool:
        letters = DeadLetters(self._kafka, Shard(0, self._shards))
        with closing(schema.connect(self._postgres)) as connection, closing(letters):
            # The transaction ends with this block: committed where it returns True, otherwise rolled back.
            with connection.cursor() as cursor:
                swapping.wait_for_the_job(cursor)
                cursor.execute("SELECT count(*) FROM public.due_letters")
                if one(cursor)[0]:
                    raise OperatorError("letters of the last recount are not sent: start the job (inv up), inv recount")
                if present_shards(cursor) != self._shards:
                    raise OperatorError("job_shards was changed just now. Nothing was changed. Again: inv recount")
                row = schema.counted_up_to(cursor)
                self._check_spans(cursor)
                self._check(row, self._topic())
                letters.fence(self._shards)
                letters.open(self._partitions, self._topic_id)
                if any(offset > row.offsets.get(number, 0) for number, offset in letters.written.items()):
                    return False
                schema.refresh_exclusions(self._postgres)
                self._counted.count(row.offsets)
                self._counted.finish(row.clocks)
                self._sent.read()
                found, due = self._find(cursor, row, _TABLES)
                newest_us = max(self._counted.clocks().values(), default=None)
                swapping.swap(cursor, newest_us, self._sent.end, due, self._included)
                if self._shards > 1:
                    cursor.execute(STAGING)
                    take_over(cursor, self._shards, self._partitions, self._timeout_us)
            connection.commit()
            self._say(
                f"swapped in: {found.rows_added + found.rows_removed + found.rows_changed:,} rows,"
                f" {found.streams:,} streams; the job goes on from there"
            )
            self._send(letters)
        return True

    def _send(self, letters: DeadLetters) -> None:
        """Send the letters that are due, unless the job, which was started again, does it."""
        letters.lost = self._counted.store.lost(self._topic_id)
        store = Store(self._postgres, self._timeout_us, self._counting.history_days, 1, schema="public")
        with closing(store):
            try:
                store.open()
                due = store.due_letters()
                letters.send_due(due)
                store.forget_due_letters(due)
            except (KafkaError, psycopg2.Error) as error:
                self._say(f"dead letters that are due are sent by the job at its next start: {one_line(error)}")

    def _say_all(self, found: Differences, seconds: float) -> None:
        for line in found.named:
            self._say(line)
        more = found.rows_added + found.rows_removed + found.rows_changed - len(found.named)
        if more > 0:
            self._say(f"... and {more:,} more rows")
        for clock in found.clocks:
            self._say(f"clock    {clock}")
        for number, gap in sorted(self._counted.gaps.items()):
            first = timestamp(gap.certain_from_us())
            self._say(
                f"kept     rows of partition {number}'s streams {f'before {first}' if first else 'at all'}, and "
                "their active viewers: records are no longer in the log"
            )
        for entry in self._included:
            self._say(f"excluded partition {entry.partition} from offset {entry.first_offset} on: becomes effective")
        self._say(
            f"recount  {self._counted.records:,} records ({seconds:.1f} s): rows {found.rows_added:,} added, "
            f"{found.rows_removed:,} removed, {found.rows_changed:,} changed; streams {found.streams:,} changed; "
            f"viewers {found.viewers_added:,} added, {found.viewers_removed:,} removed; "
            f"dead letters {found.letters_due:,} due, {found.letters_overruled:,} overruled"
        )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
