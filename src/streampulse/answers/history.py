"""The records of a few events, with their outcomes, without deciding about the whole log.

A record's outcome depends on its partition's clock and on earlier accepted records of the same event. The ledger has
the clock after every batch, so the oracle's rules are applied to the records of the event's batch only. An accepted
record that still matters for a duplicate arrived at most 15 minutes before the clock: its ``ts`` is at most 10 minutes
before the clock and at most 5 minutes after its arrival.
"""

import bisect
import re
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import psycopg2.extensions

from streampulse.answers.facts import Facts
from streampulse.events import ALLOWED_FUTURE_US, ALLOWED_LATENESS_US, InvalidEvent, parse, parse_object
from streampulse.oracle.decide import ACCEPTED, Decision, PartitionLog, Record
from streampulse.oracle.reader import Bounds, TopicReader
from streampulse.oracle.spans import reason_of

_UUID: Final = re.compile(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_NO_CLOCK: Final = -1


class Outcome(NamedTuple):
    """The outcome of one record.

    ``duplicate_of`` is the offset of the accepted record of the same event. ``excluded``: the outcome follows from an
    entry in ``excluded_records``.
    """

    record: Record
    decision: Decision
    duplicate_of: int | None
    excluded: bool


class Positions:
    """One partition's offset and clock in each ledger row, in the order of commits."""

    def __init__(self, connection: psycopg2.extensions.connection, topic_id: str, partition: int) -> None:
        self.seqs, self._offsets, self._clocks = array("q"), array("q"), array("q")
        # A server-side cursor: a ledger of days has hundreds of thousands of rows.
        with connection.cursor("positions", withhold=True) as cursor:
            cursor.itersize = 50_000
            cursor.execute(
                "SELECT seq, coalesce((offsets ->> %(p)s)::bigint, 0), coalesce((clocks ->> %(p)s)::bigint, %(none)s)"
                " FROM batch_ledger WHERE topic_id = %(topic)s AND %(n)s %% shards = shard ORDER BY seq",
                {"p": str(partition), "n": partition, "topic": topic_id, "none": _NO_CLOCK},
            )
            for seq, offset, clock in cursor:
                self.seqs.append(seq)
                self._offsets.append(offset)
                self._clocks.append(clock)
        # Offsets go back where the log was lost. The smallest one from each row on never does.
        self._smallest = array("q", self._offsets)
        for row in range(len(self._smallest) - 2, -1, -1):
            self._smallest[row] = min(self._smallest[row], self._smallest[row + 1])

    def before(self, offset: int) -> int:
        """Return the index of the newest row up to which a record was not read, -1 where the ledger has none."""
        return bisect.bisect_right(self._smallest, offset) - 1

    def at(self, row: int) -> tuple[int, int | None]:
        """Return a row's offset and clock, the latter in microseconds since the epoch."""
        clock = self._clocks[row]
        return self._offsets[row], None if clock == _NO_CLOCK else clock


class History:
    """Finds records of events in the topic and decides their outcomes.

    :param reader: reads the topic; :param topic: its name.
    :param connection: to PostgreSQL; :param facts: read over it.
    """

    def __init__(
        self, reader: TopicReader, topic: str, connection: psycopg2.extensions.connection, facts: Facts
    ) -> None:
        self._reader = reader
        self._topic = topic
        self._connection = connection
        self._facts = facts
        self._positions: dict[int, Positions] = {}
        self.bounds = reader.bounds(topic)

    def positions(self, partition: int) -> Positions:
        """Return a partition's positions, read once."""
        if partition not in self._positions:
            self._positions[partition] = Positions(self._connection, self._facts.topic_id, partition)
        return self._positions[partition]

    def starts(self, partitions: Collection[int], since_ms: int | None) -> dict[int, int]:
        """Return where to look for records that arrived since an instant, and for those that make them duplicates.

        :param since_ms: milliseconds since the epoch; None: from the beginning of the log.
        """
        starts = {number: self.bounds[number].start for number in partitions}
        if since_ms is None:
            return starts
        stamps: dict[int, int] = {}
        for number, offset in self._reader.offsets_at(self._topic, dict.fromkeys(partitions, since_ms)).items():
            row = self.positions(number).before(offset)
            clock = None if row < 0 else self.positions(number).at(row)[1]
            if clock is not None:
                stamps[number] = min(since_ms, (clock - ALLOWED_LATENESS_US - ALLOWED_FUTURE_US) // 1000)
        return starts | (self._reader.offsets_at(self._topic, stamps) if stamps else {})

    def records(
        self, ids: Collection[str], starts: Mapping[int, int], progress: Callable[[int], None] | None = None
    ) -> dict[int, list[Record]]:
        """Return by partition the records of events, in offset order.

        :param ids: event ids as lower-case text; :param starts: by partition the first offset to read.
        :param progress: called now and then with the number of records so far.
        """
        self.bounds = self._reader.bounds(self._topic)
        spans = {number: Bounds(start, self.bounds[number].end) for number, start in starts.items()}
        wanted = {each.encode() for each in ids}
        found: dict[int, list[Record]] = {number: [] for number in spans}
        for record in self._reader.read(self._topic, spans, progress, self._facts.unreadable):
            value = record.value or b""
            # An escape may hide an id's characters.
            shown = b"\\" in value or any(each in wanted for each in _UUID.findall(value.lower()))
            if shown and not self.ids_of(record).isdisjoint(ids):
                found[record.partition].append(record)
        return found

    def ids_of(self, record: Record) -> set[str]:
        """Return the event ids that a record has, as lower-case text: one, or all that the bytes of no event show."""
        value = record.value or b""
        try:
            return {parse(record.key, value, record.partition, len(self.bounds)).event_id}
        except InvalidEvent:
            pass
        with suppress(InvalidEvent):
            event_id = parse_object(value).get("event_id")
            return {event_id.lower()} if isinstance(event_id, str) else set()
        return {each.decode() for each in _UUID.findall(value.lower())}

    def outcomes(
        self, partition: int, records: Sequence[Record], until: int | None = None
    ) -> tuple[PartitionLog, list[Outcome]]:
        """Decide the outcomes of a partition's records.

        :param records: all records of some events, in offset order, from where :meth:`starts` says.
        :param until: go on to this offset behind the last of them.
        :returns: the partition's acceptance behind them, and the outcomes.
        """
        log = PartitionLog(partition, len(self.bounds))
        accepted: dict[tuple[str, str], int] = {}
        outcomes: list[Outcome] = []
        asked = {record.offset for record in records}
        ends = [record.offset + 1 for record in records] + ([until] if until is not None else [])
        for end in ends:
            for record, decision, excluded in self._decided(log, end):
                if record.offset not in asked:
                    continue
                event = decision.event
                identity = (event.stream_id, event.event_id) if event is not None else ("", "")
                before = accepted.get(identity) if decision.outcome == "duplicate" else None
                if decision.outcome == ACCEPTED:
                    accepted[identity] = record.offset
                outcomes.append(Outcome(record, decision, before, excluded))
        return log, outcomes

    def _decided(self, log: PartitionLog, end: int) -> Iterator[tuple[Record, Decision, bool]]:
        """Decide about the records up to an offset, from the nearest ledger row before its last one on."""
        number = log.partition
        first = self.bounds[number].start
        row = self.positions(number).before(end - 1)
        offset, clock = self.positions(number).at(row) if row >= 0 else (-1, None)
        # Where neither the log nor the ledger has what was before, outcomes are uncertain.
        begins_unknown = log.next_offset == 0 < first and offset < first
        if offset >= max(first, log.next_offset):
            first, log.clock_us = offset, clock
        first = max(first, log.next_offset)
        entries = self._facts.excluded.get(number, ())
        lost = sorted(self._facts.lost.get(number, ()), key=lambda span: span.first_offset)
        for record in self._reader.read(self._topic, {number: Bounds(first, end)}, None, self._facts.unreadable):
            while lost and lost[0].first_offset <= record.offset:
                log.lose(lost.pop(0).clock_us)
            if begins_unknown:
                log.missing_until_us, begins_unknown = record.stamp_ms * 1000 + ALLOWED_FUTURE_US, False
            reason = reason_of(entries, record.offset)
            decision = log.decide(record, reason)
            yield record, decision, reason is not None and decision.outcome == reason
