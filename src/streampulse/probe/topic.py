"""The topic of the events, through clients that belong to no group: where it ends, and what arrived when."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from streampulse.core.settings import KafkaSettings
from streampulse.probe.part import line

# One record of a partition is wanted, and the broker hands out whole batches.
_FETCH_BYTES: Final = 16 * 1024
_POLL_SECONDS: Final = 0.5


class Log(NamedTuple):
    """The log as it is: its topic's id, and by partition the first offset, and the one after the last record."""

    topic_id: str
    starts: Mapping[int, int]
    ends: Mapping[int, int]


class Unreadable(Exception):  # noqa: N818 - a finding
    """Kafka did not say it; the text says why."""


class Topic:
    """Asks Kafka. Used by one thread; after a failure everything is connected anew.

    :param settings: where Kafka is and what the topic is called.
    :param patience: how long each answer may take, in seconds.
    """

    def __init__(self, settings: KafkaSettings, patience: float) -> None:
        self._settings = settings
        self._patience = patience
        self._admin: Any = None
        self._consumer: Any = None

    def read(self) -> Log:
        """Ask for the log's bounds, as a ``read_committed`` consumer has them.

        :raises Unreadable: Kafka does not answer, or there is no such topic.
        """
        name = self._settings.topic
        try:
            self._connect()
            found = [each for each in self._admin.describe_topics([name]) if not each.get("error_code")]
            if not found or not found[0].get("partitions"):
                raise Unreadable(f"there is no topic {name}")
            partitions = [TopicPartition(name, each["partition_index"]) for each in found[0]["partitions"]]
            milliseconds = round(self._patience * 1000)
            starts = self._consumer.beginning_offsets(partitions, timeout_ms=milliseconds)
            ends = self._consumer.end_offsets(partitions, timeout_ms=milliseconds)
        except (KafkaError, OSError) as error:
            self.close()
            raise Unreadable(line(error)) from None
        return Log(
            str(found[0]["topic_id"]),
            {each.partition: starts[each] for each in partitions},
            {each.partition: ends[each] for each in partitions},
        )

    def arrivals(self, offsets: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, float]:
        """Return by partition when the first record at an offset or after it arrived, in seconds since the epoch.

        A partition in which no record is left before its end (markers of transactions have offsets too) is not in it.

        :param offsets: by partition; each before the partition's end.
        :raises Unreadable: Kafka does not hand them out in time.
        """
        name = self._settings.topic
        partitions = {TopicPartition(name, number): offset for number, offset in offsets.items()}
        deadline = time.monotonic() + self._patience
        found: dict[int, float] = {}
        try:
            self._consumer.assign(list(partitions))
            for partition, offset in partitions.items():
                self._consumer.seek(partition, offset)
            waiting = set(partitions)
            while waiting:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Unreadable(f"no records within {self._patience:g} s")
                # No longer than this for a partition in which there may be nothing left but markers.
                pause = max(1, round(min(left, _POLL_SECONDS) * 1000))
                for partition, records in self._consumer.poll(timeout_ms=pause).items():
                    if partition in waiting:
                        found[partition.partition] = records[0].timestamp / 1000
                        waiting.discard(partition)
                        self._consumer.pause(partition)
                waiting -= {
                    each for each in waiting if self._consumer.position(each, timeout_ms=pause) >= ends[each.partition]
                }
            # What was fetched and is not wanted is let go of.
            self._consumer.assign([])
        except (KafkaError, OSError) as error:
            self.close()
            raise Unreadable(line(error)) from None
        except Unreadable:
            self.close()
            raise
        return found

    def close(self) -> None:
        """Let go of the connections."""
        for client in (self._consumer, self._admin):
            if client is not None:
                with contextlib.suppress(KafkaError, OSError):
                    client.close()
        self._consumer = self._admin = None

    def _connect(self) -> None:
        milliseconds = round(self._patience * 1000)
        arguments: dict[str, Any] = {
            **self._settings.client_arguments("streampulse-probe"),
            "bootstrap_timeout_ms": milliseconds,
            "request_timeout_ms": milliseconds,
            "reconnect_backoff_max_ms": 1_000,
        }
        if self._admin is None:
            self._admin = KafkaAdminClient(**arguments)
        if self._consumer is None:
            self._consumer = KafkaConsumer(
                **arguments,
                group_id=None,
                enable_auto_commit=False,
                isolation_level="read_committed",
                # Retention may have been quicker than we are.
                auto_offset_reset="earliest",
                fetch_max_wait_ms=min(500, milliseconds),
                max_partition_fetch_bytes=_FETCH_BYTES,
                max_poll_records=1,
                metrics_enabled=False,
            )
