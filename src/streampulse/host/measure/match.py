"""The moment at which each record of the topic became visible in the tables.

A ledger row is written in the transaction of its batch's rows, so both become visible at once. The row holds the
batch's end offset of each partition. The first commit beyond a record's offset is the one that made it visible.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

#: The reported percentiles.
REPORTED: Final = (50, 95, 99)


class Commit(NamedTuple):
    """A ledger row as it became visible.

    ``at`` is in seconds since the epoch, by this host's clock; ``offsets`` holds the next offset to read by partition.
    """

    seq: int
    at: float
    offsets: Mapping[int, int]


class Visibility:
    """Looks up when a record became visible.

    :param commits: in the order of their sequence numbers.
    """

    def __init__(self, commits: Iterable[Commit]) -> None:
        self._reached: dict[int, list[int]] = {}
        self._at: dict[int, list[float]] = {}
        for commit in commits:
            for partition, offset in commit.offsets.items():
                reached = self._reached.setdefault(partition, [])
                # Most commits do not advance every partition.
                if not reached or offset > reached[-1]:
                    reached.append(offset)
                    self._at.setdefault(partition, []).append(commit.at)

    def at(self, partition: int, offset: int) -> float | None:
        """Return when the record at an offset became visible, in seconds since the epoch; None: not yet."""
        reached = self._reached.get(partition, [])
        index = bisect_right(reached, offset)
        return self._at[partition][index] if index < len(reached) else None


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return a percentile by the nearest-rank method: the smallest value that ``percent`` % of all do not exceed.

    The result is always one of the values, never interpolated.

    :param ordered: at least one value, ascending.
    :param percent: above 0, at most 100.
    """
    return ordered[math.ceil(percent / 100 * len(ordered)) - 1]


def summary(values: Iterable[float]) -> dict[str, float]:
    """Return the count, the reported percentiles and the largest value.

    :raises ValueError: there are no values.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("nothing was measured")
    found = {f"p{percent}": percentile(ordered, percent) for percent in REPORTED}
    return {"count": len(ordered), **found, "max": ordered[-1]}
