"""The table ``excluded_records``: records that do not count although the log holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import psycopg2.extensions

from streampulse.job.rows import Exclusion

#: ``excluded_by`` of the job's own entries.
_JOB: Final = "job"
_LOAD: Final = (
    "SELECT partition, generation, first_offset, last_offset, reason FROM excluded_records"
    " WHERE topic_id = %s AND NOT pending ORDER BY partition, first_offset"
)
_ENTER: Final = (
    "INSERT INTO excluded_records (topic_id, partition, generation, first_offset, last_offset, reason, excluded_by)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
)


def load(
    cursor: psycopg2.extensions.cursor, topic_id: str, generations: Mapping[int, int]
) -> dict[int, list[Exclusion]]:
    """Return by partition the entries of a topic that are in force, in offset order.

    :param generations: by partition the number of its lost spans; entries of earlier generations are left out.
    """
    cursor.execute(_LOAD, (topic_id,))
    found: dict[int, list[Exclusion]] = {}
    for partition, generation, first, last, reason in cursor:
        if generation == generations.get(partition, 0):
            found.setdefault(partition, []).append(Exclusion(partition, first, last, reason))
    return found


def enter(
    cursor: psycopg2.extensions.cursor, topic_id: str, generations: Mapping[int, int], entries: Iterable[Exclusion]
) -> None:
    """Enter records in the caller's transaction. Entries that are there already stay as they are.

    :param generations: by partition the number of its lost spans.
    """
    rows = [(topic_id, each.partition, generations.get(each.partition, 0), *each[1:], _JOB) for each in entries]
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
