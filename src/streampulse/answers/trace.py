"""``streampulse trace``: the path of past events, from partition, offset and ledger. The hot path is not involved."""

import argparse
import re
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import psycopg2.extensions

from streampulse.answers.conditions import Where, instant_ms
from streampulse.answers.facts import Facts, read_facts
from streampulse.answers.history import History, Outcome
from streampulse.answers.letters import Letter, Letters, Source
from streampulse.answers.output import database
from streampulse.core import kafka, postgres
from streampulse.core.errors import OperatorError, UsageError
from streampulse.core.settings import ApiSettings, KafkaSettings, PostgresSettings, load
from streampulse.events import partition_of
from streampulse.host.peek import printable
from streampulse.job.store.retention import WHOLE_LEDGER_DAYS
from streampulse.job.store.state import accepted_ids
from streampulse.oracle.command import Progress
from streampulse.oracle.decide import ACCEPTED, DEAD_LETTER_REASONS, DUPLICATE
from streampulse.oracle.reader import Bounds, TopicReader
from streampulse.oracle.tables import window_of

#: Outcomes besides those of the oracle.
EXCLUDED: Final = "excluded"
LOST: Final = "lost"
#: Header of a record in which its producer may say when it was sent.
SENT_HEADER: Final = "sent"
_EVENT_ID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BATCH: Final = "SELECT begun_at, decoded_at, committed_at, committed_at < now() - %s FROM batch_ledger WHERE seq = %s"
_FIRST: Final = (
    "SELECT committed_at = (SELECT first_read FROM topics_read AS t WHERE t.topic_id = b.topic_id)"
    " FROM batch_ledger AS b WHERE seq = %s"
)
_SPANS: Final = (
    "SELECT partition, kind, first_offset, next_offset, noted_at FROM lost_spans WHERE topic_id = %s ORDER BY seq"
)
_WHO: Final = (
    "SELECT reason, excluded_by, excluded_at FROM excluded_records WHERE topic_id = %s AND partition = %s"
    " AND NOT pending AND %s BETWEEN first_offset AND last_offset ORDER BY generation DESC LIMIT 1"
)
_ROW: Final = (
    "SELECT chat_messages, donations, donations_usd, joins, leaves, unique_viewers, active_viewers"
    " FROM stream_metrics_minute WHERE window_start = %s AND stream_id = %s"
)


class Times(NamedTuple):
    """When a record's batch was begun, decoded and committed; None: not known.

    ``after`` is set where only two times are known between which the record was committed: ``after`` and ``committed``.
    """

    begun: datetime | None
    decoded: datetime | None
    committed: datetime
    after: datetime | None = None
    is_exact: bool = True


@dataclass
class Path:
    """What happened to one record of an event. Without ``times`` it is not counted yet."""

    outcome: Outcome
    times: Times | None
    letter: Letter | None = None

    @property
    def word(self) -> str:
        """The outcome in one word."""
        return EXCLUDED if self.outcome.excluded else self.outcome.decision.outcome


@dataclass
class Answer:
    """What happened to one event: the paths of its records, and sentences about records that Kafka lost."""

    paths: list[Path] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def words(self) -> list[str]:
        """The outcomes of its records, each in one word."""
        return [each.word for each in self.paths] + [LOST] * len(self.lost)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse trace``."""
    parser.add_argument("event_id", metavar="EVENT_ID")
    parser.add_argument("--stream", default="", help="its stream: only that partition is read")
    parser.add_argument("--since", default="", help="it arrived since: a duration (2h) or an instant")


def run(arguments: argparse.Namespace) -> int:
    """Print what happened to an event.

    :raises OperatorError: there is no trace of it, or Kafka or PostgreSQL does not answer.
    """
    kafka.silence()
    event_id = arguments.event_id.lower()
    if not _EVENT_ID.fullmatch(event_id):
        raise UsageError(f"{printable(event_id.encode())} is not an event_id: a UUID of 36 characters. See: inv peek")
    since_ms = instant_ms(arguments.since, time.time_ns() // 1_000_000) if arguments.since else None
    settings = load(KafkaSettings)
    progress = Progress()
    with closing(TopicReader(settings)) as reader, database(load(PostgresSettings), "trace") as connection:
        tracer = Tracer(reader, settings, connection)
        answer = tracer.answers([event_id], arguments.stream, since_ms, progress)[event_id]
        progress.done()
        lines = list(tracer.said(answer) if answer.words else tracer.said_of_nothing())
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
    if not answer.words:
        part = f"the partition of {printable(arguments.stream.encode())}" if arguments.stream else "the log"
        part += f" since {arguments.since}" if arguments.since else ""
        raise OperatorError(f"{event_id} is not in {part}: it was not sent, or its record is gone. See: inv dlq list")
    return 0


class Tracer:
    """Answers for events.

    :param reader: reads the topics; :param settings: their names.
    :param connection: to PostgreSQL.
    """

    def __init__(
        self, reader: TopicReader, settings: KafkaSettings, connection: psycopg2.extensions.connection
    ) -> None:
        self._reader = reader
        self._topic = settings.topic
        self._connection = connection
        self._letters = Letters(reader, settings.dlq_topic, settings.topic)
        self.facts: Facts = read_facts(connection, reader, settings.topic)
        self._history = History(reader, settings.topic, connection, self.facts)

    def answers(
        self,
        ids: Collection[str],
        stream: str = "",
        since_ms: int | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> dict[str, Answer]:
        """Return what happened to some events.

        :param ids: their ids as lower-case text.
        :param stream: only the partition of this stream is read; empty: all are.
        :param since_ms: only the log from this instant on is read; milliseconds since the epoch.
        """
        bounds = self._history.bounds
        numbers = [partition_of(stream.encode(), len(bounds))] if stream else list(bounds)
        starts = self._history.starts(numbers, since_ms)
        total = sum(bounds[number].end - start for number, start in starts.items())
        found = self._history.records(
            ids, starts, lambda count: progress(f"trace  read {count:,} of {total:,} records")
        )
        answers = {each: Answer() for each in ids}
        for number, records in found.items():
            for outcome in self._history.outcomes(number, records)[1]:
                if since_ms is not None and outcome.record.stamp_ms < since_ms:
                    continue
                for event_id in self._history.ids_of(outcome.record) & answers.keys():
                    answers[event_id].paths.append(Path(outcome, self._times(number, outcome.record.offset)))
        self._find_letters([path for each in answers.values() for path in each.paths])
        self._find_lost(answers, numbers)
        return answers

    def _times(self, number: int, offset: int) -> Times | None:
        if offset >= self.facts.offsets.get(number, 0):
            return None
        positions = self._history.positions(number)
        row = positions.before(offset)
        ((begun, decoded, committed, is_old),) = postgres.execute(
            self._connection, _BATCH, (timedelta(days=WHOLE_LEDGER_DAYS), positions.seqs[row + 1])
        )
        if row < 0:
            ((is_first,),) = postgres.execute(self._connection, _FIRST, (positions.seqs[0],))
            return Times(begun, decoded, committed, None, bool(is_first))
        if not is_old:
            return Times(begun, decoded, committed)
        ((_, _, after, _),) = postgres.execute(
            self._connection, _BATCH, (timedelta(days=WHOLE_LEDGER_DAYS), positions.seqs[row])
        )
        return Times(None, None, committed, after, is_exact=False)

    def _find_letters(self, paths: Sequence[Path]) -> None:
        """Find the dead letters of the records that are none of the numbers."""
        due: dict[Source, Path] = {}
        for path in paths:
            record = path.outcome.record
            if path.outcome.decision.outcome in DEAD_LETTER_REASONS and path.times is not None:
                generation = self.facts.generation(record.partition, record.offset)
                due[Source(record.partition, generation, record.offset)] = path
        if not due:
            return
        since = min(path.outcome.record.stamp_ms for path in due.values()) - 1_000
        for letter in self._letters.all(Where(since_ms=since)):
            found = due.pop(letter.source, None)
            if found is not None:
                found.letter = letter
            if not due:
                return

    def _find_lost(self, answers: dict[str, Answer], numbers: Collection[int]) -> None:
        """Find events among the records that were read before Kafka lost them: in the job's state and in letters."""
        spans = [(number, span) for number in numbers for span in self.facts.lost.get(number, ())]
        if not spans:
            return
        by_bytes = {uuid.UUID(each).bytes: each for each in answers}
        for number in {number for number, _ in spans}:
            first = min(span.first_offset for each, span in spans if each == number)
            with self._connection.cursor() as cursor:
                counted = [(at, by_bytes[each]) for at, each in accepted_ids(cursor, number, first) if each in by_bytes]
            for offset, event_id in counted:
                answer = answers[event_id]
                if offset not in {path.outcome.record.offset for path in answer.paths}:
                    answer.lost.append(f"it was read at partition {number} offset {offset} and counted")
        for letter in self._letters.all(Where()):
            if letter.source.generation < self.facts.generation(letter.source.partition, letter.source.offset):
                value = (letter.value or b"").lower()
                for event_id, answer in answers.items():
                    if event_id.encode() in value:
                        place = f"partition {letter.source.partition} offset {letter.source.offset}"
                        answer.lost.append(f"it was read at {place} and refused: {letter.reason}, {letter.detail}")

    # -- in words -------------------------------------------------------------------------------------------------

    def said(self, answer: Answer) -> Iterator[str]:
        """Yield an answer as lines."""
        for path in answer.paths:
            yield from self._said_of(path)
        for sentence in answer.lost:
            yield f"lost: {sentence}; then Kafka lost the record"

    def said_of_nothing(self) -> Iterator[str]:
        """Yield as lines which records an event without a trace can have been."""
        for number, bounds in self._history.bounds.items():
            if bounds.start:
                yield f"partition {number} begins at offset {bounds.start}: older records were removed"
        for number, kind, first, following, noted in postgres.execute(self._connection, _SPANS, (self.facts.topic_id,)):
            what = "read, then lost by Kafka" if kind == "lost" else "removed before they were read"
            yield f"records {first} to {following - 1} of partition {number} were {what} (noted at {_text(noted)})"
        for number, spans in self.facts.unreadable.items():
            for first, end in spans:
                yield f"records {first} to {end - 1} of partition {number} cannot be read: inv exclude list"

    def _said_of(self, path: Path) -> Iterator[str]:
        record, decision = path.outcome.record, path.outcome.decision
        place = f"partition {record.partition} offset {record.offset}"
        perhaps = "" if decision.certain else "perhaps (records before it are gone) "
        if path.times is None:
            yield f"{place}: not counted yet, the job is at offset {self.facts.offsets.get(record.partition, 0)}"
        elif path.word == EXCLUDED:
            entry = (self.facts.topic_id, record.partition, record.offset)
            ((reason, who, at),) = postgres.execute(self._connection, _WHO, entry)
            yield f"{place}: excluded as {reason} by {who} at {_text(at)}"
        elif decision.outcome == DUPLICATE:
            yield f"{place}: {perhaps}a duplicate of offset {path.outcome.duplicate_of}"
        else:
            yield f"{place}: {perhaps}{decision.outcome}"
        raw = next(self._reader.read_with_headers(self._topic, {record.partition: _one(record.offset)}), None)
        sent = dict(raw.headers).get(SENT_HEADER) if raw is not None else None
        if sent is not None:
            yield f"  sent       {printable(sent)} by its header"
        yield f"  stamped    {_text(_EPOCH + timedelta(milliseconds=record.stamp_ms))} by the broker"
        if path.times is not None:
            yield from _said_times(path.times)
        if path.letter is not None:
            yield f"  letter     {printable(path.letter.detail.encode())}"
        elif path.times is not None and decision.outcome in DEAD_LETTER_REASONS:
            yield "  letter     no longer in the topic of dead letters"
        if path.word == ACCEPTED and decision.event is not None and path.times is not None:
            latest = _text(path.times.committed + api_delay())
            yield f"  in the API no later than {latest}, if its settings are the default ones"
            window = _EPOCH + timedelta(microseconds=window_of(decision.event.ts_us))
            rows = postgres.execute(self._connection, _ROW, (window, decision.event.stream_id))
            name = f"window {_text(window)} of {printable(decision.event.stream_id.encode())}"
            if rows:
                names = ("chat", "donations", "usd", "joins", "leaves", "unique", "active")
                yield f"  row        {name}: " + ", ".join(f"{a} {b}" for a, b in zip(names, rows[0], strict=True))
            else:
                yield f"  row        {name} is older than the history"


def _said_times(times: Times) -> Iterator[str]:
    if times.after is not None:
        yield f"  committed  between {_text(times.after)} and {_text(times.committed)}"
    elif not times.is_exact:
        yield f"  committed  no later than {_text(times.committed)}, where the ledger begins"
    else:
        for name, at in (("begun", times.begun), ("decoded", times.decoded), ("committed", times.committed)):
            yield f"  {name:<9}  {_text(at) if at is not None else 'not known'}"


def api_delay() -> timedelta:
    """Return after how long at most the API's answers have what was committed, while PostgreSQL answers it.

    A reading that is under way may still take its time limit. The next one begins an interval later.
    """
    fields = ApiSettings.model_fields
    milliseconds = fields["snapshot_interval_ms"].default + 2 * fields["statement_timeout_ms"].default
    return timedelta(milliseconds=milliseconds)


def _one(offset: int) -> Bounds:
    return Bounds(offset, offset + 1)


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
