"""The table ``excluded_records``: records that do not count although the log holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import psycopg2.extensions

from streampulse.job.positions import generation
from streampulse.job.rows import Exclusion

#: ``excluded_by`` of the job's own entries.
_JOB: Final = "job"
_LOAD: Final = (
    "SELECT partition, generation, first_offset, last_offset, reason FROM excluded_records"
    " WHERE topic_id = %s AND NOT pending ORDER BY partition, first_offset"
)
_ENTER: Final = (
    "INSERT INTO excluded_records AS e"
    " (topic_id, partition, generation, first_offset, last_offset, reason, excluded_by)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (topic_id, partition, generation, first_offset)"
    " DO UPDATE SET last_offset = greatest(e.last_offset, EXCLUDED.last_offset), pending = false"
)


def load(
    cursor: psycopg2.extensions.cursor, topic_id: str, lost: Mapping[int, Sequence[int]]
) -> dict[int, list[Exclusion]]:
    """Return by partition the entries of a topic that are in force, in offset order.

    :param lost: by partition the first offset of each lost span; entries of records that were lost are left out.
    """
    cursor.execute(_LOAD, (topic_id,))
    found: dict[int, list[Exclusion]] = {}
    for partition, of_generation, first, last, reason in cursor:
        if of_generation == generation(lost.get(partition, ()), first):
            last = min([last, *(offset - 1 for offset in lost.get(partition, ()) if offset > first)])
            found.setdefault(partition, []).append(Exclusion(partition, first, last, reason))
    return found


def enter(
    cursor: psycopg2.extensions.cursor, topic_id: str, lost: Mapping[int, Sequence[int]], entries: Iterable[Exclusion]
) -> None:
    """Enter records in the caller's transaction. An entry that begins at the same record is extended.

    :param lost: by partition the first offset of each lost span.
    """
    rows = [
        (topic_id, each.partition, generation(lost.get(each.partition, ()), each.first_offset), *each[1:], _JOB)
        for each in entries
    ]
    if rows:
        cursor.executemany(_ENTER, rows)


def joined(entries: Sequence[Exclusion]) -> list[Exclusion]:
    """Return the entries, of which each with the reason and the next offset of the one before is joined to it."""
    found: list[Exclusion] = []
    for each in entries:
        last = found[-1] if found else None
        follows = last is not None and last.last_offset + 1 == each.first_offset
        if last is not None and follows and (last.partition, last.reason) == (each.partition, each.reason):
            found[-1] = last._replace(last_offset=each.last_offset)
        else:
            found.append(each)
    return found
