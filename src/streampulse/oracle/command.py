"""``streampulse verify``: recompute every number from the raw topic and compare."""

import argparse
import dataclasses
import gc
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import psycopg2
import psycopg2.extensions

from streampulse.core.errors import OperatorError, one_line
from streampulse.core.kafka import silence
from streampulse.core.postgres import connect, execute
from streampulse.core.settings import CountingSettings, KafkaSettings, PostgresSettings, load
from streampulse.events import ALLOWED_FUTURE_US, ALLOWED_LATENESS_US, Event, is_internal, partition_of
from streampulse.oracle.compare import (
    ExpectedLetter,
    Horizon,
    LetterCheck,
    instant,
    minute_differences,
    state_differences,
)
from streampulse.oracle.decide import ACCEPTED, DEAD_LETTER_REASONS, DUPLICATE, INVALID, PartitionLog, Record
from streampulse.oracle.reader import Bounds, TopicReader
from streampulse.oracle.spans import (
    Exclusion,
    LostSpan,
    borders,
    by_partition,
    epoch_us,
    in_force,
    read_spans,
    reason_of,
    unreadable,
    uuid_of,
)
from streampulse.oracle.tables import DAY_US, MINUTE_US, MinuteRow, StateRow, Tables, event_clock, tables, window_of

DEFAULT_SHOWN: Final = 20


class Snapshot(NamedTuple):
    """The newest ledger rows and the tables' ordinary streams, from one transaction.

    ``ledger_clocks_us`` and ``table_clocks_us`` are the event clocks of the job's shards.
    ``committed`` is False while the ledger is empty. ``topics`` is the number of different topics that the ledger was
    read from. ``letters_end`` is the offset after the last dead letter that had been sent before the last recount.
    Times are microseconds since the epoch.
    """

    committed: bool
    topic_id: str | None
    topics: int
    offsets: dict[int, int]
    clocks: dict[int, int]
    ledger_clocks_us: Sequence[int | None]
    table_clocks_us: Sequence[int | None]
    minutes: dict[tuple[int, str], MinuteRow]
    states: dict[str, StateRow]
    lost: Sequence[LostSpan] = ()
    excluded: Sequence[Exclusion] = ()
    letters_end: int = 0

    def shard(self, partition: int) -> int:
        """Return the shard of the job that counts a partition."""
        return partition % max(1, len(self.ledger_clocks_us))


@dataclass
class Log:
    """The raw topic's content, up to the ledger's offsets.

    ``missing_until_us`` holds, for each partition with an incomplete log, an upper bound of the missing records' times
    (None if no record gives one). ``uncertain_until_us`` holds the newest time of a record whose outcome depends on the
    missing ones. ``complete_before_us`` holds a lower bound of the missing records' times, where only lost
    spans are missing.
    """

    partitions: int
    spans: dict[int, Bounds]
    accepted: dict[str, list[Event]] = field(default_factory=dict)
    clocks: dict[int, int] = field(default_factory=dict)
    letters: dict[tuple[int, int], ExpectedLetter] = field(default_factory=dict)
    uncertain: set[tuple[int, int]] = field(default_factory=set)
    outcomes: dict[str, int] = field(default_factory=dict)
    first_stamps_ms: dict[int, int | None] = field(default_factory=dict)
    missing_until_us: dict[int, int | None] = field(default_factory=dict)
    uncertain_until_us: dict[int, int] = field(default_factory=dict)
    complete_before_us: dict[int, int] = field(default_factory=dict)

    def clock_is_certain(self, partition: int) -> bool:
        """Tell whether no missing record can have moved the partition's clock further."""
        if partition not in self.missing_until_us:
            return True
        bound = self.missing_until_us[partition]
        return bound is not None and self.clocks.get(partition, bound - 1) >= bound

    def clocks_with(self, ledger: Mapping[int, int]) -> dict[int, int]:
        """Return each partition's clock; the ledger fills in for records that the log no longer holds."""
        clocks = dict(self.clocks)
        for partition in self.missing_until_us:
            if not self.clock_is_certain(partition) and partition in ledger:
                clocks[partition] = max(ledger[partition], clocks.get(partition, ledger[partition]))
        return clocks

    def certain_from(self) -> dict[int, int | None]:
        """Return, for each partition with an incomplete log, the first window with certain counts."""
        first: dict[int, int | None] = {}
        for partition, bound in self.missing_until_us.items():
            if bound is None:
                first[partition] = None
            else:
                newest = max(bound, self.uncertain_until_us.get(partition, bound))
                first[partition] = window_of(newest) + MINUTE_US
        return first


@dataclass
class Report:
    """The outcome of one verification."""

    records: int = 0
    rows: int = 0
    streams: int = 0
    dead_letters: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    event_clock: str | None = None
    difference_count: int = 0
    differences: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    seconds: float = 0.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse verify``."""
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.add_argument(
        "--show", type=int, default=DEFAULT_SHOWN, metavar="N", help=f"differences to print (default {DEFAULT_SHOWN})"
    )


def run(arguments: argparse.Namespace) -> int:
    """Verify, print the outcome, and return 0 when all is equal, 1 otherwise.

    :raises OperatorError: Kafka or PostgreSQL does not answer, or they do not belong together.
    """
    report = verify(load(KafkaSettings), load(PostgresSettings), load(CountingSettings), max(arguments.show, 0))
    if arguments.json:
        document = dataclasses.asdict(report) | {"ok": not report.difference_count}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stdout.write(text(report) + "\n")
    return 1 if report.difference_count else 0


def text(report: Report) -> str:
    """Return a report as text."""
    lines = list(report.differences)
    more = report.difference_count - len(report.differences)
    if more:
        lines.append(f"... and {more:,} more differences")
    verdict = f"{report.difference_count:,} differences" if report.difference_count else "all equal"
    lines.extend(f"not checked: {each}" for each in report.not_checked)
    lines.append(
        f"verify  {report.records:,} records, {report.rows:,} rows, {report.streams:,} streams, "
        f"{report.dead_letters:,} dead letters: {verdict} ({report.seconds:.1f} s)"
    )
    return "\n".join(lines)


class Progress:
    """A progress line on standard error: in place on a terminal, every ten seconds in a log."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + (0.5 if self._terminal else 10)
        self._shown = False

    def __call__(self, what: str) -> None:
        """Show the present step if the last one was shown a while ago."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + (0.25 if self._terminal else 10)
        self._shown = True
        sys.stderr.write(f"\r\x1b[K{what}" if self._terminal else f"{what}\n")
        sys.stderr.flush()

    def done(self) -> None:
        """Clear the line."""
        if self._shown and self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def verify(
    kafka: KafkaSettings, postgres: PostgresSettings, counting: CountingSettings, shown: int = DEFAULT_SHOWN
) -> Report:
    """Compare the tables and the dead letters with the raw topic.

    :param shown: maximum number of differences in words; the rest is counted.
    :raises OperatorError: Kafka or PostgreSQL does not answer, or they do not belong together.
    """
    silence()
    started = time.monotonic()
    progress = Progress()
    snapshot = take_snapshot(postgres)
    reader = TopicReader(kafka)
    # Millions of events and rows hold no reference cycle: collecting garbage only costs time.
    gc.disable()
    try:
        report = verify_snapshot(reader, snapshot, (kafka.topic, kafka.dlq_topic), counting, shown, progress)
    finally:
        gc.enable()
        reader.close()
        progress.done()
    report.seconds = round(time.monotonic() - started, 3)
    return report


def verify_snapshot(
    reader: TopicReader,
    snapshot: Snapshot,
    topics: tuple[str, str],
    counting: CountingSettings,
    shown: int = DEFAULT_SHOWN,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Compare one snapshot of the tables with the topics.

    :param topics: the names of the raw topic and of the dead-letter topic.
    :param shown: maximum number of differences in words; the rest is counted.
    :param progress: called now and then with the present step.
    :raises OperatorError: Kafka does not answer, or its log is not the one that the ledger was written from.
    """
    report = Report()
    topic, dlq_topic = topics
    log = read_log(reader, topic, snapshot, progress)
    clocks = log.clocks_with(snapshot.clocks)

    def clock_of(stream_id: str) -> int | None:
        return snapshot.ledger_clocks_us[snapshot.shard(partition_of(stream_id.encode(), log.partitions))]

    expected = tables(
        log.accepted,
        clocks,
        counting.viewer_timeout_seconds * 1_000_000,
        counting.history_days,
        clock_of=clock_of if len(snapshot.ledger_clocks_us) > 1 else None,
    )
    newest = event_clock(clocks)
    edge_us = newest - counting.history_days * DAY_US if newest is not None else 0
    horizon = Horizon(edge_us, log.certain_from(), log.partitions, log.complete_before_us)
    # Read last: the dead letters of a batch are written before its ledger row.
    dlq_bounds = reader.bounds(dlq_topic)
    check = LetterCheck(
        topic,
        log.spans,
        log.letters,
        frozenset(log.uncertain),
        log.first_stamps_ms if snapshot.topics > 1 else None,
        {partition: [span.first_offset for span in spans] for partition, spans in by_partition(snapshot.lost).items()},
        snapshot.letters_end,
    )
    letters = reader.read_with_headers(
        dlq_topic, dlq_bounds, lambda count: progress(f"verify  read {count:,} dead letters")
    )
    for difference in itertools.chain(
        _clock_differences(snapshot, log, clocks),
        minute_differences(expected.minutes, snapshot.minutes, horizon),
        state_differences(expected, snapshot.states, horizon),
        check.differences(letters, log_is_whole=all(bounds.start == 0 for bounds in dlq_bounds.values())),
    ):
        report.difference_count += 1
        if len(report.differences) < shown:
            report.differences.append(difference)
    report.records = sum(log.outcomes.values())
    report.outcomes = log.outcomes
    report.rows = len(expected.minutes)
    report.streams = len(expected.states)
    report.dead_letters = len(log.letters)
    report.event_clock = instant(newest) if newest is not None else None
    report.not_checked = _not_checked(snapshot, log, expected, horizon, check, dlq_bounds, counting)
    return report


def _clock_differences(snapshot: Snapshot, log: Log, clocks: dict[int, int]) -> Iterator[str]:
    for partition in sorted(clocks.keys() | snapshot.clocks.keys()):
        ours, theirs = clocks.get(partition), snapshot.clocks.get(partition)
        if ours != theirs and log.clock_is_certain(partition):
            shown = [instant(each) if each is not None else "none" for each in (theirs, ours)]
            yield f"batch_ledger: the clock of partition {partition} is {shown[0]}, by the log {shown[1]}"
    newest = event_clock(clocks)
    for where, found in (("batch_ledger", snapshot.ledger_clocks_us), ("event_clock", snapshot.table_clocks_us)):
        clock = max((each for each in found if each is not None), default=None)
        if clock != newest:
            shown = [instant(each) if each is not None else "none" for each in (clock, newest)]
            yield f"{where}: the event clock is {shown[0]}, by the log {shown[1]}"
    for shard, (ledger, table) in enumerate(itertools.zip_longest(snapshot.ledger_clocks_us, snapshot.table_clocks_us)):
        own = event_clock({number: clock for number, clock in clocks.items() if snapshot.shard(number) == shard})
        if len(snapshot.ledger_clocks_us) > 1 and (ledger != table or (own is not None and (ledger or 0) < own)):
            shown = [instant(each) if each is not None else "none" for each in (ledger, table, own)]
            yield (
                f"batch_ledger: the event clock of shard {shard} is {shown[0]}, in event_clock {shown[1]},"
                f" and that of its own partitions {shown[2]}"
            )


def _not_checked(
    snapshot: Snapshot,
    log: Log,
    expected: Tables,
    horizon: Horizon,
    check: LetterCheck,
    dlq_bounds: dict[int, Bounds],
    counting: CountingSettings,
) -> list[str]:
    """List everything that could not be compared."""
    names: list[str] = []
    if not snapshot.committed:
        names.append("any record: the job has committed no batch yet")
    if snapshot.topics > 1:
        names.append("what was counted from an earlier topic of that name: the topic was made again since")
    names.extend(
        f"records {first} to {following - 1} of partition {number}: counted, then lost by Kafka"
        for number, first, following, _ in snapshot.lost
    )
    for partition, first in sorted(horizon.certain_from.items()):
        start = log.spans[partition].start
        if start:
            names.append(f"partition {partition} before offset {start}: no longer in the log")
        span = "at all" if first is None else f"before {instant(first)}"
        if partition in horizon.complete_before_us:
            span = f"from {instant(window_of(horizon.complete_before_us[partition]))}, {span}"
        names.append(f"rows of partition {partition}'s streams {span}, and their active viewers")
    old = sum(1 for window, _ in snapshot.minutes if window < horizon.edge_us)
    if old:
        names.append(f"{old:,} rows that are older than {counting.history_days} days")
    gone = len(snapshot.states.keys() & (expected.last_events.keys() - expected.states.keys()))
    if gone:
        names.append(f"the state of {gone:,} streams that are older than {counting.history_days} days")
    if check.overruled:
        names.append(f"{check.overruled:,} dead letters that a recount has overruled")
    if check.not_checked:
        starts = sum(bounds.start for bounds in dlq_bounds.values())
        names.append(
            f"{check.not_checked:,} dead letters"
            + (f": the dead-letter topic begins at offset {starts}" if starts else " of records no longer in the log")
        )
    return names


def read_log(reader: TopicReader, topic: str, snapshot: Snapshot, progress: Callable[[str], None]) -> Log:
    """Read the raw topic up to the ledger's offsets and decide each record's outcome.

    :raises OperatorError: Kafka does not answer, or its log is not the one that the ledger was written from.
    """
    if snapshot.topic_id is not None and uuid_of(snapshot.topic_id) not in (None, reader.topic_id(topic)):
        raise OperatorError(
            f"{topic} was made again since the newest ledger row, nothing to compare yet: "
            "wait for the job's next batch (inv logs job), or inv reset"
        )
    spans = _spans(topic, reader.bounds(topic), snapshot.offsets)
    log = Log(partitions=len(spans), spans=spans)
    whole = {partition: snapshot.topics <= 1 and span.start == 0 for partition, span in spans.items()}
    total = sum(span.end - span.start for span in spans.values())
    logs: dict[int, PartitionLog] = {}
    for partition in spans:
        log.first_stamps_ms[partition] = None
        if not whole[partition]:
            log.missing_until_us[partition] = None
    lost = by_partition(snapshot.lost)
    due = {number: borders(found) for number, found in lost.items()}
    excluded = in_force(snapshot.excluded, lost)
    passed_over = unreadable(excluded)
    _expect_letters(log, passed_over)
    for record in reader.read(
        topic, spans, lambda count: progress(f"verify  read {count:,} of {total:,} records"), passed_over
    ):
        if record.partition not in logs:
            bound = None if whole[record.partition] else record.stamp_ms * 1000 + ALLOWED_FUTURE_US
            logs[record.partition] = PartitionLog(record.partition, log.partitions, bound)
            log.first_stamps_ms[record.partition] = record.stamp_ms
            if bound is not None:
                log.missing_until_us[record.partition] = bound
        _lose(log, logs[record.partition], due.get(record.partition, []), record.offset)
        entries = excluded.get(record.partition)
        _note(log, logs[record.partition], record, reason_of(entries, record.offset) if entries else None)
    for partition, found in due.items():
        _lose(log, logs.setdefault(partition, PartitionLog(partition, log.partitions)), found, log.spans[partition].end)
    for partition, each in logs.items():
        if each.clock_us is not None:
            log.clocks[partition] = each.clock_us
    return log


def _expect_letters(log: Log, passed_over: Mapping[int, Sequence[Bounds]]) -> None:
    """Expect a dead letter without key and value for each record that cannot be read."""
    for partition, found in passed_over.items():
        start, end = log.spans.get(partition, Bounds(0, 0))
        for first, following in found:
            for offset in range(max(first, start), min(following, end)):
                log.letters[partition, offset] = ExpectedLetter(INVALID, "value", None, None)
                log.outcomes[INVALID] = log.outcomes.get(INVALID, 0) + 1


def _lose(log: Log, partition_log: PartitionLog, due: list[LostSpan], offset: int) -> None:
    """Go on behind the spans that are lost before an offset, and note which times their records can have had."""
    while due and due[0].first_offset <= offset:
        number, clock = partition_log.partition, partition_log.clock_us
        if number not in log.missing_until_us or number in log.complete_before_us:
            from_us = 0 if clock is None else clock - ALLOWED_LATENESS_US
            log.complete_before_us[number] = min(from_us, log.complete_before_us.get(number, from_us))
        partition_log.lose(due.pop(0).clock_us)
        log.missing_until_us[number] = partition_log.missing_until_us


def _spans(topic: str, bounds: dict[int, Bounds], offsets: dict[int, int]) -> dict[int, Bounds]:
    """Return the span to read of each partition: from the log's start to the ledger's offset."""
    spans = {}
    for partition, (start, end) in bounds.items():
        wanted = offsets.get(partition, 0)
        if wanted > end:
            raise OperatorError(
                f"partition {partition} of {topic} ends at offset {end}, but the ledger is at {wanted}: Kafka lost "
                "records that were counted; restore its data, or inv reset"
            )
        spans[partition] = Bounds(start, max(start, wanted))
    return spans


def _note(log: Log, partition_log: PartitionLog, record: Record, excluded: str | None) -> None:
    """Decide one record's outcome and file it."""
    decision = partition_log.decide(record, excluded)
    log.outcomes[decision.outcome] = log.outcomes.get(decision.outcome, 0) + 1
    source = (record.partition, record.offset)
    if decision.outcome in DEAD_LETTER_REASONS:
        log.letters[source] = ExpectedLetter.of(record, decision)
    elif decision.outcome in (ACCEPTED, DUPLICATE) and decision.event is not None:
        event = decision.event
        if not decision.certain:
            log.uncertain.add(source)
            newest = log.uncertain_until_us.get(record.partition, event.ts_us)
            log.uncertain_until_us[record.partition] = max(newest, event.ts_us)
        # Rows of internal streams may be removed at any time; only their dead letters are checked.
        if decision.outcome == ACCEPTED and not is_internal(event.stream_id):
            # Share one string for each user and type, so that two million events fit into memory.
            log.accepted.setdefault(sys.intern(event.stream_id), []).append(
                event._replace(
                    stream_id=sys.intern(event.stream_id),
                    user_id=sys.intern(event.user_id),
                    event_type=sys.intern(event.event_type),
                )
            )


def take_snapshot(settings: PostgresSettings) -> Snapshot:
    """Read the newest ledger rows and the tables in one repeatable-read transaction.

    :raises OperatorError: PostgreSQL does not answer or its schema is missing.
    """
    try:
        with closing(connect(settings, "streampulse-verify")) as connection:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True, autocommit=False)
            return _read_snapshot(connection)
    except psycopg2.errors.UndefinedTable as error:
        raise OperatorError(
            f"the database {settings.database} lacks a table ({str(error).splitlines()[0]}): inv up"
        ) from None
    except psycopg2.OperationalError as error:
        raise OperatorError(
            f"PostgreSQL at {settings.host}:{settings.port} does not answer ({one_line(error)}): inv logs postgres"
        ) from None


def _read_snapshot(connection: psycopg2.extensions.connection) -> Snapshot:
    ledger = execute(
        connection,
        f"SELECT topic_id, offsets, clocks, {epoch_us('event_clock')} FROM newest_batches ORDER BY shard",  # noqa: S608 - no value in it
    )
    ids = {row[0] for row in ledger if row[0] is not None}
    if len(ids) > 1:
        raise OperatorError(
            "the topic was made again, and not every shard of the job has a ledger row since: "
            "wait for their next batches (inv logs job), or inv reset"
        )
    topic_id = next(iter(ids), None)
    offsets, clocks = ({name: value for row in ledger for name, value in row[column].items()} for column in (1, 2))
    with connection.cursor() as cursor:
        lost, excluded = read_spans(cursor, topic_id)
    ((overruled,),) = execute(
        connection, "SELECT coalesce(max(letters_end), 0) FROM recounts WHERE topic_id = %s", (topic_id,)
    )
    ((topics,),) = execute(connection, "SELECT count(*) FROM topics_read")
    table_clocks = execute(connection, f"SELECT {epoch_us('clock')} FROM event_clock ORDER BY shard")  # noqa: S608 - no value in it
    rows_of_state = execute(
        connection,
        f"SELECT stream_id, active_viewers, {epoch_us('updated_at')} FROM stream_state "  # noqa: S608 - no value in it
        "WHERE left(stream_id, 2) <> '__'",
    )
    minutes: dict[tuple[int, str], MinuteRow] = {}
    # A server-side cursor: thirty days of many streams are not held in memory twice.
    with connection.cursor("verify") as rows:
        rows.itersize = 20_000
        rows.execute(
            f"SELECT {epoch_us('window_start')}, stream_id, chat_messages, donations, donations_usd * 100, joins, "  # noqa: S608 - no value in it
            "leaves, unique_viewers, active_viewers FROM stream_metrics_minute WHERE left(stream_id, 2) <> '__'"
        )
        for window, stream_id, *columns in rows:
            minutes[window, sys.intern(stream_id)] = MinuteRow(*columns)
    return Snapshot(
        committed=bool(ledger),
        topic_id=topic_id,
        topics=topics,
        offsets={int(partition): int(offset) for partition, offset in offsets.items()},
        clocks={int(partition): int(each) for partition, each in clocks.items() if each is not None},
        ledger_clocks_us=[row[3] for row in ledger],
        table_clocks_us=[clock for (clock,) in table_clocks],
        minutes=minutes,
        states={stream_id: StateRow(*columns) for stream_id, *columns in rows_of_state},
        lost=lost,
        excluded=excluded,
        letters_end=overruled,
    )
