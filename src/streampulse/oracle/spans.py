"""The tables ``lost_spans`` and ``excluded_records``, on which the outcome of records depends besides the log."""

import base64
import bisect
import uuid
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psycopg2.extensions

from streampulse.oracle.compare import generation_at
from streampulse.oracle.decide import INVALID
from streampulse.oracle.reader import Bounds


class LostSpan(NamedTuple):
    """A row of ``lost_spans`` of the kind ``lost``. ``clock_us``: the partition's clock, in microseconds."""

    partition: int
    first_offset: int
    next_offset: int
    clock_us: int | None


class Exclusion(NamedTuple):
    """A row of ``excluded_records`` that is in force: the offsets of a generation, and the outcome of their records."""

    partition: int
    generation: int
    first_offset: int
    last_offset: int
    reason: str


def epoch_us(column: str) -> str:
    """Return the SQL of a column's instant in microseconds since the epoch."""
    return f"(extract(epoch from {column}) * 1000000)::bigint"


def read_spans(cursor: psycopg2.extensions.cursor, topic_id: str | None) -> tuple[list[LostSpan], list[Exclusion]]:
    """Return a topic's lost spans, in the order in which they were noted, and its exclusions in force."""
    cursor.execute(
        f"SELECT partition, first_offset, next_offset, {epoch_us('clock')} FROM lost_spans"  # noqa: S608 - no value in it
        " WHERE kind = 'lost' AND topic_id = %s ORDER BY seq",
        (topic_id,),
    )
    lost = [LostSpan(*row) for row in cursor]
    cursor.execute(
        "SELECT partition, generation, first_offset, last_offset, reason FROM excluded_records"
        " WHERE topic_id = %s AND NOT pending",
        (topic_id,),
    )
    excluded = [Exclusion(*row) for row in cursor]
    return lost, excluded


def unreadable(excluded: Mapping[int, Sequence[Exclusion]]) -> dict[int, list[Bounds]]:
    """Return by partition the offsets of records that cannot be read: those that are excluded as invalid."""
    found: dict[int, list[Bounds]] = {}
    for partition, entries in excluded.items():
        for each in entries:
            if each.reason == INVALID:
                found.setdefault(partition, []).append(Bounds(each.first_offset, each.last_offset + 1))
    return found


def by_partition(lost: Sequence[LostSpan]) -> dict[int, list[LostSpan]]:
    """Return the lost spans of each partition, in the order in which they were noted."""
    found: dict[int, list[LostSpan]] = {}
    for span in lost:
        found.setdefault(span.partition, []).append(span)
    return found


def in_force(excluded: Sequence[Exclusion], lost: Mapping[int, Sequence[LostSpan]]) -> dict[int, list[Exclusion]]:
    """Return by partition the exclusions of records that the log has, by their first offset."""
    found: dict[int, list[Exclusion]] = {}
    for each in sorted(excluded):
        firsts = [span.first_offset for span in lost.get(each.partition, ())]
        if each.generation == generation_at(firsts, each.first_offset):
            ends = [first - 1 for first in firsts if first > each.first_offset]
            entry = each._replace(last_offset=min([each.last_offset, *ends]))
            found.setdefault(each.partition, []).append(entry)
    return found


def reason_of(entries: Sequence[Exclusion], offset: int) -> str | None:
    """Return the reason for which a record is excluded, None where it is not."""
    before = bisect.bisect_right(entries, offset, key=lambda each: each.first_offset)
    return entries[before - 1].reason if before and offset <= entries[before - 1].last_offset else None


def borders(spans: Sequence[LostSpan]) -> list[LostSpan]:
    """Return a partition's spans whose beginning the log still has: no later span began at or before it."""
    return [
        span
        for number, span in enumerate(spans)
        if all(span.first_offset < later.first_offset for later in spans[number + 1 :])
    ]


def uuid_of(written: str) -> uuid.UUID | None:
    """Parse a topic's id in either form of Kafka's clients; None if it is neither."""
    try:
        return uuid.UUID(written)
    except ValueError:
        pass
    try:
        return uuid.UUID(bytes=base64.urlsafe_b64decode(written + "=="))
    except ValueError:
        return None
