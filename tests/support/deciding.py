"""What the oracle and the job's decoder make of a whole topic's records."""

from collections.abc import Iterable, Mapping

from streampulse.events import Event, is_internal
from streampulse.job.decode.slices import Decoder, Raw
from streampulse.job.rows import Slice
from streampulse.oracle.decide import ACCEPTED, FUTURE, Decision, PartitionLog, Record
from streampulse.oracle.tables import Tables, tables

Decided = list[tuple[Record, Decision]]


def decide(records: Iterable[Record], partitions: int) -> tuple[Decided, dict[int, int]]:
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


def expected_tables(decisions: Decided, clocks: dict[int, int], timeout_us: int, history_days: int = 3650) -> Tables:
    """Return the tables of all accepted events, with the streams of the pipeline's own at their own clocks."""
    accepted: dict[str, list[Event]] = {}
    own: dict[str, int] = {}
    for _, decision in decisions:
        if decision.event is None:
            continue
        stream = decision.event.stream_id
        if decision.outcome == ACCEPTED:
            accepted.setdefault(stream, []).append(decision.event)
        if is_internal(stream) and decision.outcome != FUTURE:
            own[stream] = max(own.get(stream, 0), decision.event.ts_us)
    return tables(accepted, clocks, timeout_us, history_days, own)


def decoded(batch: Iterable[Record], clocks: Mapping[int, int], partitions: int) -> list[Slice]:
    """Return a batch as the executors hand it to the driver."""
    pieces: list[Slice] = []
    for number in range(partitions):
        mine = [(each.offset, each.stamp_ms * 1000, each.key, each.value) for each in batch if each.partition == number]
        if mine:
            raw = Raw(*(list(column) for column in zip(*mine, strict=True)))
            pieces.append(Decoder(number, partitions, clocks.get(number)).decode([raw]))
    return pieces
