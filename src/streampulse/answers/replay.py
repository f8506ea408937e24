"""Send dead letters again: predict each outcome by the oracle's rules, send, and compare.

A letter is claimed in ``replayed_letters`` before it is sent, so it is sent at most once, whatever ends the replay.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import psycopg2.extensions
import psycopg2.extras
from confluent_kafka import KafkaException, Producer

from streampulse.answers.conditions import Where
from streampulse.answers.facts import Facts
from streampulse.answers.history import History
from streampulse.answers.letters import Letter, Letters
from streampulse.answers.output import columns, moment
from streampulse.core import postgres
from streampulse.core.errors import OperatorError, UsageError
from streampulse.core.settings import KafkaSettings
from streampulse.events import (
    ALLOWED_FUTURE_US,
    ALLOWED_LATENESS_US,
    INTERNAL_PREFIX,
    MAX_RECORD_BYTES,
    InvalidEvent,
    parse,
    partition_of,
)
from streampulse.job.rows import PRODUCER_HEADER
from streampulse.oracle.decide import DUPLICATE, FUTURE, Decision, PartitionLog, Record
from streampulse.oracle.reader import TopicReader

#: More letters at once are refused: each is held in memory with what it was predicted to become.
AT_MOST: Final = 20_000
#: A prediction so near to a limit is uncertain: clocks move on until the record arrives.
MARGIN_US: Final = 30_000_000
#: Fields that the contract wants as text, whatever their value looks like.
_TEXTS: Final = frozenset({"event_id", "ts", "event_type", "stream_id", "user_id"})
#: The letter of a record that is larger than the contract allows has only the beginning of its value.
_CUT: Final = f"value: larger than {MAX_RECORD_BYTES} bytes"
_SEND_SECONDS: Final = 60.0
_COUNT_SECONDS: Final = 120.0
_CLAIM: Final = (
    'INSERT INTO replayed_letters (topic_id, partition, generation, "offset", replayed_by, predicted) VALUES %s'
    ' ON CONFLICT DO NOTHING RETURNING partition, generation, "offset"'
)
_SENT: Final = (
    "UPDATE replayed_letters AS r SET new_partition = v.new_partition, new_offset = v.new_offset"
    " FROM (VALUES %s) AS v (topic_id, partition, generation, at, new_partition, new_offset)"
    ' WHERE (r.topic_id, r.partition, r.generation, r."offset") = (v.topic_id, v.partition, v.generation, v.at)'
)


@dataclass
class Due:
    """A letter that is to be sent, its record, and the prediction. ``sent`` is partition and offset of the replay."""

    letter: Letter
    key: bytes | None
    value: bytes
    decision: Decision
    uncertain: bool
    sent: tuple[int, int] | None = None
    outcome: str = ""


def edits(given: Sequence[str]) -> dict[str, str]:
    """Read changes of fields such as ``amount_usd=5.10``; return the new values as JSON.

    :raises UsageError: one has another form.
    """
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise UsageError(f"--set {each}: not FIELD=VALUE. Try: inv dlq replay --set amount_usd=5.10 --dry-run")
        text = json.dumps(value)
        if name not in _TEXTS:
            try:
                msgspec.json.decode(value)
                text = value
            except msgspec.DecodeError:
                pass
        found[name] = text
    return found


def edited(value: bytes, changes: Mapping[str, str]) -> bytes | None:
    """Return a JSON object with some fields changed and all others as they are; None where the value is no object."""
    try:
        fields = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return msgspec.json.encode(fields | {name: msgspec.Raw(text) for name, text in changes.items()})


class Replay:
    """One replay of some letters. Call :meth:`predict`, :meth:`send` and :meth:`compared` in this order.

    :param by: name of the operator.
    """

    def __init__(
        self,
        reader: TopicReader,
        settings: KafkaSettings,
        connection: psycopg2.extensions.connection,
        facts: Facts,
        by: str,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._facts = facts
        self._by = by
        self._history = History(reader, settings.topic, connection, facts)
        self._starts: dict[int, int] = {}
        self._begun_ms = 0
        self.due: list[Due] = []
        #: By reason the letters that are not sent.
        self.refused: Counter[str] = Counter()
        #: Replays with another outcome than predicted, although the prediction was not uncertain.
        self.surprises: list[Due] = []

    def predict(self, letters: Sequence[Letter], changes: Mapping[str, str]) -> None:
        """Choose the letters that can be sent, and predict what each would become now.

        :raises OperatorError: there are too many letters, or Kafka or PostgreSQL does not answer.
        """
        if len(letters) > AT_MOST:
            raise OperatorError(
                f"{len(letters):,} letters meet the conditions, and {AT_MOST:,} are replayed at a time: narrow them, "
                "--where stream=…,since=…"
            )
        rows = postgres.execute(
            self._connection,
            'SELECT partition, generation, "offset", replayed_by, replayed_at, new_partition, new_offset'
            " FROM replayed_letters WHERE topic_id = %s",
            (self._facts.topic_id,),
        )
        replayed = {row[:3]: (row[3], row[4]) for row in rows}
        replays = {row[5:] for row in rows}
        chosen: list[tuple[Letter, bytes | None, bytes]] = []
        for letter in letters:
            why = self._refusal(letter, replayed)
            # Otherwise each replay of everything would send the letters of the one before.
            if (letter.source.partition, letter.source.offset) in replays and letter.reason != FUTURE and not changes:
                why = why or "of a replay, and it would become the same; correct a field with --set"
            value = letter.value or b""
            key = letter.key
            if not why and changes:
                changed = edited(value, changes)
                why = "" if changed is not None else "not a JSON object, so no field of it can be set"
                value = changed or value
                key = json.loads(changes["stream_id"]).encode() if "stream_id" in changes else key
            if why:
                self.refused[why] += 1
            else:
                chosen.append((letter, key, value))
        self._decide(chosen)

    def _refusal(self, letter: Letter, replayed: Mapping[tuple[Any, ...], tuple[str, Any]]) -> str:
        if tuple(letter.source) in replayed:
            who, at = replayed[tuple(letter.source)]
            return f"replayed before, by {who} at {moment(at)}"
        if letter.value is None:
            return "has no value"
        if letter.detail == _CUT:
            return "its value was cut; its producer has to send the event again"
        if (letter.key or b"").startswith(INTERNAL_PREFIX.encode()):
            return "of an internal stream"
        if self._facts.first_read_ms is not None and letter.at_ms < self._facts.first_read_ms - 60_000:
            return "of an earlier topic of that name"
        return ""

    def _decide(self, chosen: Sequence[tuple[Letter, bytes | None, bytes]]) -> None:
        partitions = len(self._history.bounds)
        now_us = time.time_ns() // 1000
        self._begun_ms = now_us // 1000
        self._starts = self._history.starts(list(self._history.bounds), self._begun_ms)
        before = self._history.records(_ids(chosen, partitions), self._starts)
        logs: dict[int, PartitionLog] = {}
        for number in self._history.bounds:
            end = self._history.bounds[number].end
            logs[number], _ = self._history.outcomes(number, before.get(number, []), end)
            logs[number].next_offset = max(logs[number].next_offset, end)
        for letter, key, value in chosen:
            # A record without a key may get into any partition. It is invalid in each.
            log = logs[0 if key is None else partition_of(key, partitions)]
            record = Record(log.partition, log.next_offset, now_us // 1000, key, value)
            uncertain = self._near_a_limit(log, record, now_us)
            decision = log.decide(record)
            self.due.append(Due(letter, key, value, decision, uncertain or not decision.certain))

    @staticmethod
    def _near_a_limit(log: PartitionLog, record: Record, now_us: int) -> bool:
        try:
            event = parse(record.key, record.value, record.partition, log.partitions)
        except InvalidEvent:
            return False
        limits = [now_us + ALLOWED_FUTURE_US - event.ts_us]
        if log.clock_us is not None:
            oldest = log.clock_us - ALLOWED_LATENESS_US
            limits.append(event.ts_us - oldest)
            accepted = log.accepted_at(event)
            if accepted is not None:
                limits.append(accepted - oldest)
        return any(abs(limit) <= MARGIN_US for limit in limits)

    def said(self) -> list[str]:
        """Return the prediction as lines: counts, and each letter that would not be accepted."""
        lines = [
            f"  {each.letter.line()}: {'perhaps ' if each.uncertain else ''}{each.decision.outcome} again"
            + (f" ({each.decision.detail})" if each.decision.detail else "")
            if each.decision.outcome != DUPLICATE
            else f"  {each.letter.line()}: a duplicate"
            for each in self.due
            if each.decision.event is None or each.uncertain or each.decision.outcome != "accepted"
        ]
        counts = Counter((each.decision.outcome, each.uncertain) for each in self.due)
        table = [
            (f"{count:,}", f"would be {outcome}" + (", uncertain: within 30 s of a limit" if uncertain else ""))
            for (outcome, uncertain), count in sorted(counts.items())
        ]
        table += [(f"{count:,}", f"refused: {why}") for why, count in sorted(self.refused.items())]
        return [*lines, *columns(table)] if table else ["no letter meets the conditions: inv dlq list"]

    def send(self) -> None:
        """Claim the letters and send them, those of a partition in the order of the letters.

        :raises OperatorError: Kafka did not take all of them; the text says how many it took.
        """
        rows = [(self._facts.topic_id, *each.letter.source, self._by, each.decision.outcome) for each in self.due]
        with self._connection.cursor() as cursor:
            claimed = set(psycopg2.extras.execute_values(cursor, _CLAIM, rows, page_size=len(rows), fetch=True))
        self.refused["replayed by somebody else just now"] += len(self.due) - len(claimed)
        self.due = [each for each in self.due if tuple(each.letter.source) in claimed]
        producer = Producer(
            {
                **self._settings.librdkafka_options("streampulse-dlq"),
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "message.timeout.ms": round(_SEND_SECONDS * 1000),
                "log_level": 2,
            }
        )
        failed: list[str] = []

        def note(each: Due) -> Any:
            def delivered(error: Any, message: Any) -> None:
                if error is None:
                    each.sent = message.partition(), message.offset()
                else:
                    failed.append(error.str())

            return delivered

        try:
            for each in self.due:
                name = each.letter.producer
                headers: dict[str, str | bytes | None] = {PRODUCER_HEADER: name} if name else {}
                producer.produce(self._settings.topic, each.value, each.key, headers=headers, on_delivery=note(each))
                producer.poll(0)
        except (KafkaException, BufferError) as error:
            failed.append(str(error))
        producer.flush(_SEND_SECONDS)
        done = [(self._facts.topic_id, *each.letter.source, *each.sent) for each in self.due if each.sent is not None]
        if done:
            with self._connection.cursor() as cursor:
                psycopg2.extras.execute_values(cursor, _SENT, done, page_size=len(done))
        if len(done) < len(self.due):
            why = failed[0] if failed else "no acknowledgement"
            raise OperatorError(
                f"Kafka took {len(done):,} of {len(self.due):,} letters ({why}). The others count as replayed, since "
                "it may have taken them; look for their events with inv trace EVENT_ID. See: inv logs kafka"
            )

    def compared(self, letters: Letters) -> list[str]:
        """Wait until the job has counted the replays, and return as lines what became of them.

        :raises OperatorError: the job does not get there in time.
        """
        self._await_job()
        again = {
            (each.source.partition, each.source.offset): each.reason
            for each in letters.all(Where(since_ms=self._begun_ms - 5_000))
        }
        partitions = len(self._history.bounds)
        chosen = [(each.letter, each.key, each.value) for each in self.due]
        records = self._history.records(_ids(chosen, partitions), self._starts)
        decided = {
            (number, each.record.offset): each.decision.outcome
            for number in records
            for each in self._history.outcomes(number, records[number])[1]
        }
        for each in self.due:
            if each.sent is not None:
                each.outcome = again.get(each.sent) or decided.get(each.sent, "unknown")
        self.surprises = [each for each in self.due if each.outcome != each.decision.outcome and not each.uncertain]
        counts = Counter(each.outcome for each in self.due)
        lines = [(f"{count:,}", outcome) for outcome, count in sorted(counts.items())]
        differing = [
            f"  {each.letter.line()}: predicted {each.decision.outcome}, became {each.outcome} at offset "
            f"{each.sent and each.sent[1]}"
            for each in self.surprises
        ]
        verdict = "as predicted" if not differing else f"{len(differing):,} not as predicted"
        return [f"replayed {len(self.due):,} letters, {verdict}", *columns(lines), *differing]

    def _await_job(self) -> None:
        reached: dict[int, int] = {}
        for each in self.due:
            if each.sent is not None:
                reached[each.sent[0]] = max(reached.get(each.sent[0], 0), each.sent[1] + 1)
        deadline = time.monotonic() + _COUNT_SECONDS
        while True:
            ((offsets,),) = postgres.execute(self._connection, "SELECT offsets FROM counted_up_to")
            if all(offsets.get(str(number), 0) >= offset for number, offset in reached.items()):
                return
            if time.monotonic() > deadline:
                raise OperatorError(
                    f"{len(self.due):,} letters were sent, and the job did not count them within "
                    f"{_COUNT_SECONDS:.0f} s: inv status, then inv trace EVENT_ID for each"
                )
            time.sleep(0.3)


def _ids(chosen: Sequence[tuple[Letter, bytes | None, bytes]], partitions: int) -> set[str]:
    """Return the ids of the events that are valid."""
    found = set()
    for _, key, value in chosen:
        try:
            found.add(parse(key, value, partition_of(key or b"", partitions), partitions).event_id)
        except InvalidEvent:
            continue
    return found
