"""What identifies a position in a partition's log.

An offset alone does not: a broker that lost the unsynced end of a log gives the same offsets to other records. So a
position is known by the last record before it.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple


class LastRecord(NamedTuple):
    """The last record with data before a position, as a ``read_committed`` consumer sees it.

    ``epoch`` is the leader epoch in which it was appended, None where Kafka does not say. ``fingerprint``: see
    :func:`fingerprint`.
    """

    offset: int
    epoch: int | None
    fingerprint: str


class Position(NamedTuple):
    """Where reading a partition goes on: the next offset, the clock in microseconds if it has one, the record before.

    ``last`` is None where no record was read yet, or where a release before wrote the position. A slice that begins
    here ends at the offset ``until``, where a span was lost: the clock behind it is that of the span.
    """

    offset: int
    clock_us: int | None
    last: LastRecord | None = None
    until: int | None = None

    def up_to(self, offset: int | None) -> "Position":
        """Return the position with a slice that ends at an offset at the latest; None: where it ended."""
        ends = [end for end in (self.until, offset) if end is not None]
        return self._replace(until=min(ends, default=None))


class Border(NamedTuple):
    """Where a span of a partition was lost: its first offset, and the clock there in microseconds, if it had one."""

    offset: int
    clock_us: int | None


def position(offset: int, clock_us: int | None, last: LastRecord | None, borders: Sequence[Border]) -> Position:
    """Return a position in a partition with lost spans.

    :param clock_us: the clock of the records before it; :param borders: those of the partition.
    """
    clocks = [clock_us, *(border.clock_us for border in borders if border.offset <= offset)]
    newest = max((clock for clock in clocks if clock is not None), default=None)
    return Position(offset, newest, last, min((each.offset for each in borders if each.offset > offset), default=None))


def fingerprint(stamp_ms: int, key: bytes | None, value: bytes | None) -> str:
    """Return a record's SHA-256 in hexadecimal digits.

    It is that of the stamp (milliseconds since the epoch, 8 bytes, big-endian), of the key and of the value; key and
    value each begin with their length in 8 bytes, which is -1 where there is none.
    """
    total = hashlib.sha256(stamp_ms.to_bytes(8, "big", signed=True))
    for part in (key, value):
        total.update((-1 if part is None else len(part)).to_bytes(8, "big", signed=True))
        total.update(part or b"")
    return total.hexdigest()


def generation(lost: Sequence[int], offset: int) -> int:
    """Return the generation of the record that the log has at an offset: the number of spans that were lost before it.

    :param lost: the first offset of each lost span of the partition, in the order in which they were noted.
    """
    return max((number for number, first in enumerate(lost, 1) if first <= offset), default=0)


def is_same(found: LastRecord, expected: LastRecord) -> bool:
    """Tell whether two records of one partition are the same one. The epoch need not be known."""
    return (found.offset, found.fingerprint) == (expected.offset, expected.fingerprint)
