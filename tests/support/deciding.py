"""The outcomes of a whole topic's records, as the oracle decides them one by one."""

from __future__ import annotations

from collections.abc import Iterable

from streampulse.oracle.decide import Decision, PartitionLog, Record


def decide(records: Iterable[Record], partitions: int) -> tuple[list[tuple[Record, Decision]], dict[int, int]]:
    """Decide the outcome of each record of a topic.

    :param records: the records, those of each partition in offset order.
    :param partitions: number of partitions of the topic.
    :returns: each record with its decision, in the order given; and the clock of each partition that has one, in
        microseconds since the epoch.
    """
    logs = {number: PartitionLog(number, partitions) for number in range(partitions)}
    decisions = [(record, logs[record.partition].decide(record)) for record in records]
    clocks = {number: log.clock_us for number, log in logs.items() if log.clock_us is not None}
    return decisions, clocks
