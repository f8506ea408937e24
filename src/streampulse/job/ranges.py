"""Which offsets of each partition a micro-batch reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: Bytes of keys and values in one micro-batch at most, over all partitions. It bounds what executors send to the
#: driver. A quarter of a million events of the usual size are half of it.
BATCH_BYTES: Final = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Range:
    """Where a batch ends in one partition: at the offset ``end``, which it excludes, or after ``max_bytes``.

    They are bytes of keys and values as the decoder gets them: uncompressed.
    """

    partition: int
    end: int
    max_bytes: int

    @property
    def letter_bytes(self) -> int:
        """Bytes of keys and values of dead letters: an eighth, since the driver holds them several times."""
        return self.max_bytes // 8


def bounded_ends(first: Mapping[int, int], ends: Mapping[int, int], max_records: int | None) -> dict[int, int]:
    """Return where a batch ends in each partition.

    Each partition gets the share of the records that it has of what waits, and at least one: no partition starves.

    :param first: where the batch begins; :param ends: where the partitions end, none of them before ``first``.
    :param max_records: maximum number of records, None for no limit.
    """
    waiting = {number: ends[number] - offset for number, offset in first.items()}
    total = sum(waiting.values())
    if max_records is None or total <= max_records:
        return dict(ends)
    return {
        number: first[number] + min(count, max(1, count * max_records // total)) for number, count in waiting.items()
    }


def ranges(first: Mapping[int, int], ends: Mapping[int, int]) -> list[Range]:
    """Return a range for each partition that has something to read, the largest first.

    Spark starts tasks in this order. With the largest last, the other cores would wait for it.
    """
    counts = {number: end - first[number] for number, end in ends.items() if end > first[number]}
    total = sum(counts.values())
    return [
        Range(number, ends[number], max(BATCH_BYTES // (4 * len(counts)), BATCH_BYTES * count // total))
        for number, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
