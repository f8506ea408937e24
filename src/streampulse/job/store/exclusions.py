"""The table ``excluded_records``: records that do not count although the log holds them.

An operator enters a record as pending. The running job, which alone knows what it has read, puts the entry in force
where it has not read the record. Otherwise the entry has no effect until a recount with it replaces the tables.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Final, NamedTuple

import psycopg2
import psycopg2.extensions

from streampulse.core import postgres
from streampulse.core.errors import one_line
from streampulse.core.settings import PostgresSettings
from streampulse.job.overlap import InBackground
from streampulse.job.positions import generation
from streampulse.job.rows import Exclusion

log = logging.getLogger(__name__)

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
    " DO UPDATE SET last_offset = greatest(e.last_offset, EXCLUDED.last_offset), reason = EXCLUDED.reason,"
    " pending = false"
)
_LOOK: Final = (
    "SELECT partition, generation, first_offset, last_offset, reason FROM excluded_records"
    " WHERE topic_id = %s AND pending"
)
_PUT_IN_FORCE: Final = (
    "UPDATE excluded_records SET pending = false"
    " WHERE (topic_id, partition, generation, first_offset) = (%s, %s, %s, %s) AND pending RETURNING reason"
)
_LOOK_EVERY_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 5.0


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


class _Pending(NamedTuple):
    """A pending entry and the generation of its records."""

    generation: int
    entry: Exclusion


class Exclusions:
    """The excluded records ahead of reading. Reading calls :meth:`ahead`, the driver's loop calls :meth:`look`.

    :param settings: the database and the writing role.
    :param topic_id: the topic that is read.
    :param known: by partition the entries in force, in offset order.
    :param lost: by partition the first offset of each lost span.
    :param out: by partition the offset up to which dead letters are out: what was read once is not judged again.
    :param monotonic: the monotonic clock, in seconds.
    """

    def __init__(
        self,
        settings: PostgresSettings,
        topic_id: str,
        known: Mapping[int, Sequence[Exclusion]],
        lost: Mapping[int, Sequence[int]],
        out: Mapping[int, int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._topic_id = topic_id
        self._known = {number: list(found) for number, found in known.items()}
        self._lost = lost
        self._out = out
        self._monotonic = monotonic
        self._pending: list[_Pending] = []
        self._asking: InBackground[None] | None = None
        self._due = 0.0

    def look(self) -> None:
        """Have the table read in the background, where that is due."""
        if self._monotonic() < self._due or (self._asking is not None and self._asking.running):
            return
        if self._asking is not None:
            self._asking.result()
        self._due = self._monotonic() + _LOOK_EVERY_SECONDS
        self._asking = InBackground(self.ask)

    def ask(self) -> None:
        """Read the pending entries of the records that the log has. Without an answer those read before are kept."""
        try:
            with closing(self._connect()) as connection:
                rows = postgres.execute(connection, _LOOK, (self._topic_id,))
        except psycopg2.Error as error:
            log.debug("pending exclusions: %s", one_line(error))
            return
        found = [_Pending(row[1], Exclusion(row[0], *row[2:])) for row in rows]
        self._pending = [
            each
            for each in found
            if each.generation == generation(self._lost.get(each.entry.partition, ()), each.entry.first_offset)
        ]

    def covers(self, partition: int, offset: int) -> bool:
        """Tell whether a record is excluded or is about to be."""
        entries = [*self._known.get(partition, ()), *(each.entry for each in self._pending)]
        return any(each.partition == partition and each.first_offset <= offset <= each.last_offset for each in entries)

    def ahead(self, offsets: Mapping[int, int]) -> dict[int, list[Exclusion]]:
        """Put pending entries of unread records in force, and return by partition the entries ahead.

        :param offsets: by partition the next offset to read. Nothing is being read.
        :raises psycopg2.Error: it is not known whether an entry is in force.
        """
        due = [each for each in self._pending if self._is_unread(each.entry, offsets)]
        if due:
            self._put_in_force(due)
        for number, found in self._known.items():
            self._known[number] = [each for each in found if each.last_offset >= offsets.get(number, 0)]
        return self._known

    def _is_unread(self, entry: Exclusion, offsets: Mapping[int, int]) -> bool:
        number = entry.partition
        return number in offsets and entry.first_offset >= max(offsets[number], self._out.get(number, 0))

    def _put_in_force(self, due: Sequence[_Pending]) -> None:
        try:
            connection = self._connect()
        except psycopg2.OperationalError:
            return
        with closing(connection):
            for of_generation, entry in due:
                where = (self._topic_id, entry.partition, of_generation, entry.first_offset)
                for (reason,) in postgres.execute(connection, _PUT_IN_FORCE, where):
                    self._known.setdefault(entry.partition, []).append(entry._replace(reason=reason))
        self._pending = [each for each in self._pending if each not in due]

    def _connect(self) -> psycopg2.extensions.connection:
        return postgres.connect(self._settings, "streampulse-job", statement_seconds=_ANSWER_SECONDS)
