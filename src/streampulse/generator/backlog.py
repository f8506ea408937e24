"""A backlog: many past events, divided so that several processes can make and send them.

The unit of division is the partition, never the process. Each partition has its own streams (a stream's partition
follows from its id), its own random source and its own share of the events. One process writes it from first to last.
The log of every partition is therefore a function of the :class:`Plan` alone: byte for byte the same for any number of
processes and any scheduling.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from streampulse.events import partition_of
from streampulse.generator.faults import Faults, Record, Shares
from streampulse.generator.model import MINUTE_US, Model, popularity, stream_name

# A backlog is sent seconds or days after its event times, and its bytes may not depend on the delay. Future records
# must still be in the future on arrival.
_FUTURE_US: Final = 10 * 365 * 24 * 60 * MINUTE_US


@dataclass(frozen=True)
class Plan:
    """The parameters of a backlog.

    :param events: number of good events; duplicates, late and invalid records are added.
    :param begin_us: event times are spread evenly over (begin_us, end_us], in microseconds since the epoch.
    :param end_us: see ``begin_us``.
    :param partitions: number of partitions of the topic.
    :param streams: number of streams; ``users``, ``skew`` and ``seed`` as for :class:`~.model.Model`.
    :param shares: shares of the faults.
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

    def parts(self) -> "list[Part]":
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
    """One partition's part of a backlog: its streams and its number of good events."""

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
    """Assign the parts to processes: the largest first, always to the process with the least so far."""
    loads: list[list[Part]] = [[] for _ in range(max(1, min(processes, len(parts))))]
    for part in sorted(parts, key=lambda part: (-part.events, part.partition)):
        min(loads, key=lambda load: sum(given.events for given in load)).append(part)
    return loads


def interleaved(parts: Sequence[Part], size: int) -> Iterator[tuple[int, list[Record]]]:
    """Yield (partition, records) in turns, so that all partitions advance through time together.

    :param size: approximate number of records in one turn of all parts; each part's turn is in proportion to its
        events.
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
