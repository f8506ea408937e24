"""A backlog: many events of a past stretch of time, divided so that several processes can make and send them.

The unit of division is the partition, never the process. Each partition has its own streams (a stream's partition
follows from its id), its own source of random numbers and its own share of the events, and is written by one process
from first to last. So the log of every partition is a function of the :class:`Plan` alone: byte for byte the same,
whatever the number of processes and however they are scheduled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from streampulse.events import partition_of
from streampulse.generator.faults import Faults, Record, Shares
from streampulse.generator.model import MINUTE_US, Model, popularity, stream_name

# A backlog is sent long after its times, in seconds or in days. What is from the future has to be so on arrival,
# whenever that is, and the bytes may not depend on it.
_FUTURE_US: Final = 10 * 365 * 24 * 60 * MINUTE_US


@dataclass(frozen=True)
class Plan:
    """What a backlog is.

    :param events: good events in all; duplicates, late and invalid records come on top.
    :param begin_us: the events' times are spread evenly over (begin_us, end_us], in microseconds since the epoch.
    :param end_us: see ``begin_us``.
    :param partitions: how many partitions the topic has.
    :param streams: number of streams; ``users``, ``skew`` and ``seed`` as the :class:`~.model.Model` takes them.
    :param shares: how much of it is spoiled.
    """

    events: int
    begin_us: int
    end_us: int
    partitions: int
    streams: int
    users: int
    skew: float
    seed: int
    shares: Shares

    def parts(self) -> list[Part]:
        """Return the parts of the backlog, one for each partition that has a stream, in the partitions' order."""
        members: list[list[int]] = [[] for _ in range(self.partitions)]
        for number in range(self.streams):
            members[partition_of(stream_name(number).encode("ascii"), self.partitions)].append(number)
        weights = popularity(self.streams, self.skew)
        counts = apportion(self.events, [sum(weights[number] for number in some) for some in members])
        return [
            Part(self, partition, tuple(some), count)
            for partition, (some, count) in enumerate(zip(members, counts, strict=True))
            if some
        ]


@dataclass(frozen=True)
class Part:
    """One partition's part of a backlog: which streams are there, and how many good events."""

    plan: Plan
    partition: int
    streams: tuple[int, ...]
    events: int

    def records(self) -> Iterator[Record]:
        """Yield the partition's records in order."""
        plan = self.plan
        seed = f"backlog {plan.seed} {self.partition}"
        model = Model(streams=plan.streams, users=plan.users, seed=seed, skew=plan.skew, only=self.streams)
        faults = Faults(plan.shares, seed=seed, future_us=_FUTURE_US)
        yield from faults.records(model.events(plan.begin_us, plan.end_us, self.events))
        yield from faults.rest()


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Divide a whole number in proportion to weights, by the method of largest remainders (Hamilton's)."""
    whole = sum(weights)
    quotas = [total * weight / whole for weight in weights]
    counts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(weights)), key=lambda index: (counts[index] - quotas[index], index))
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


def share_out(parts: Sequence[Part], processes: int) -> list[list[Part]]:
    """Give each process its parts: the largest first, always to the one that has least so far."""
    loads: list[list[Part]] = [[] for _ in range(max(1, min(processes, len(parts))))]
    for part in sorted(parts, key=lambda part: (-part.events, part.partition)):
        min(loads, key=lambda load: sum(given.events for given in load)).append(part)
    return loads


def interleaved(parts: Sequence[Part], size: int) -> Iterator[tuple[int, list[Record]]]:
    """Yield (partition, records) in turns, so that all partitions advance through time together.

    :param size: about how many records one turn of all parts has; each part's turn is in proportion to its events.
    """
    whole = max(1, sum(part.events for part in parts))
    turns = [(part.partition, part.records(), max(1, size * part.events // whole)) for part in parts]
    while turns:
        left = []
        for partition, records, count in turns:
            chunk = list(islice(records, count))
            if chunk:
                yield partition, chunk
                left.append((partition, records, count))
        turns = left
