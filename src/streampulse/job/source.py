"""Where reading starts: the ledger's positions held against the log as it is now."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from streampulse.core.kafka import Log
from streampulse.job.lost import Difference
from streampulse.job.positions import LastRecord
from streampulse.job.shards import ALONE, Shard
from streampulse.job.store.state import LedgerRow, Span

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """By partition the first offset to read and the record before it, and the spans that were found to be lost.

    ``partitions`` is the topic's number of partitions, of which the shard reads its own.
    """

    offsets: dict[int, int]
    last: dict[int, LastRecord | None]
    spans: list[Span]
    partitions: int = field(default=0, compare=False)


def decide_start(
    topic: Log, ledger: LedgerRow, compare: Callable[[int], Difference | None], shard: Shard = ALONE
) -> Start:
    """Decide from where each partition is read, and log what cannot be read any more.

    :param ledger: the newest row; a partition without an offset is read from its beginning.
    :param compare: returns where a partition's log begins to differ from what was read, None where it does not.
    :param shard: whose partitions are read.
    """
    remade = ledger.topic_id is not None and ledger.topic_id != topic.topic_id
    start = Start({}, {}, [], len(topic.starts))
    for number, earliest in sorted(topic.starts.items()):
        if not shard.has(number):
            continue
        reached, last = ledger.offsets.get(number, 0), ledger.last.get(number)
        offset = reached
        difference = None if remade or reached < earliest else compare(number)
        if remade:
            offset, last = earliest, None
            log.error(
                "partition %d: Kafka's log was lost and created again; reading from %d, what was counted is kept",
                number,
                earliest,
            )
            if reached:
                start.spans.append(_span(ledger, number, "lost", 0, reached))
        elif reached < earliest:
            offset = earliest
            log.error("partition %d: records %d to %d were deleted unread", number, reached, earliest - 1)
            if ledger.topic_id is not None:
                start.spans.append(_span(ledger, number, "unread", reached, earliest))
        elif difference is not None:
            offset, last = difference
            start.spans.append(_span(ledger, number, "lost", offset, reached))
            log.error(
                "partition %d: Kafka's log lost the records %d to %d (leader epoch %s); reading from %d,"
                " what was counted is kept",
                number,
                offset,
                reached - 1,
                start.spans[-1].epoch,
                offset,
            )
        start.offsets[number], start.last[number] = offset, last
    return start


def _span(ledger: LedgerRow, number: int, kind: str, first: int, following: int) -> Span:
    last = ledger.last.get(number)
    epoch = None if last is None else last.epoch
    return Span(ledger.topic_id or "", number, kind, first, following, epoch, ledger.clocks.get(number))
