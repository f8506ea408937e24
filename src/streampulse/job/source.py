"""Where reading starts: the ledger's offsets held against the log as it is now."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from streampulse.core.kafka import Log

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """First offset to read, by partition, and the partitions whose logs are shorter than that or were created again."""

    offsets: dict[int, int]
    gone_back: list[int]


def decide_start(topic: Log, next_offsets: dict[int, int], topic_id: str | None) -> Start:
    """Decide from where each partition is read, and say in the log what cannot be read any more.

    :param next_offsets: the ledger's offsets; a partition without one is read from its beginning.
    :param topic_id: the id of the topic that these are of, None where nothing was committed.
    """
    remade = topic_id is not None and topic_id != topic.topic_id
    offsets, gone_back = {}, []
    for number, earliest in sorted(topic.starts.items()):
        latest = topic.ends[number]
        wanted = next_offsets.get(number, 0)
        if remade:
            log.error(
                "partition %d: Kafka's log was lost and created again; reading from %d, what was counted is kept",
                number,
                earliest,
            )
            gone_back.append(number)
            wanted = earliest
        elif wanted > latest:
            # Of what is still there, everything was counted before: a broker that lost power lost the newest records.
            log.error(
                "partition %d: Kafka's log lost its end, it ends at offset %d where %d was reached; reading from %d,"
                " what was counted is kept",
                number,
                latest,
                wanted,
                latest,
            )
            gone_back.append(number)
            wanted = latest
        elif wanted < earliest:
            log.error("partition %d: records %d to %d were deleted unread", number, wanted, earliest - 1)
            wanted = earliest
        offsets[number] = wanted
    return Start(offsets, gone_back)
