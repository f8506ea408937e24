"""The event topic as the probe reads it: its bounds and the arrival times of records."""

import time
from collections.abc import Mapping
from typing import Final

from kafka import TopicPartition
from kafka.errors import KafkaError

from streampulse.core import kafka
from streampulse.core.errors import OperatorError, one_line
from streampulse.core.settings import KafkaSettings
from streampulse.probe.part import Unreadable

# The probe needs one record of a partition; the broker sends whole batches.
_FETCH_BYTES: Final = 16 * 1024
_POLL_SECONDS: Final = 0.5
#: Shorter transactions hold nobody back.
LONG_SECONDS: Final = 5.0


class Topic:
    """Queries Kafka. Used by one thread; reconnects after a failure.

    :param settings: addresses of Kafka and the topic's name.
    :param patience: limit for each response, in seconds.
    """

    def __init__(self, settings: KafkaSettings, patience: float) -> None:
        self._patience = patience
        self._topic = kafka.Topic(
            settings,
            "streampulse-probe",
            patience,
            # Retention may remove a record before the probe asks for it.
            auto_offset_reset="earliest",
            fetch_max_wait_ms=min(500, round(patience * 1000)),
            max_partition_fetch_bytes=_FETCH_BYTES,
            max_poll_records=1,
            metrics_enabled=False,
        )

    def read(self) -> kafka.Log:
        """Return the log's bounds, as a ``read_committed`` consumer sees them.

        :raises Unreadable: Kafka does not answer, or the topic is missing.
        """
        try:
            return self._topic.log()
        except (KafkaError, OSError, OperatorError) as error:
            self._topic.close()
            raise Unreadable(one_line(error)) from None

    def transactions(self) -> list[kafka.OpenTransaction]:
        """Return the transactions on the topic that are open for longer than :data:`LONG_SECONDS`.

        :raises Unreadable: Kafka does not answer.
        """
        try:
            return self._topic.transactions(LONG_SECONDS)
        except (KafkaError, OSError) as error:
            self._topic.close()
            raise Unreadable(one_line(error)) from None

    def arrivals(self, offsets: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, float]:
        """Return by partition the arrival of the first record at or after an offset, in seconds since the epoch.

        A partition without a record between the offset and its end is left out. Transaction markers take offsets, too.

        :param offsets: by partition; each before the partition's end.
        :raises Unreadable: Kafka does not send the records in time.
        """
        try:
            return self._arrivals(offsets, ends)
        except (KafkaError, OSError) as error:
            self._topic.close()
            raise Unreadable(one_line(error)) from None
        except Unreadable:
            self._topic.close()
            raise

    def _arrivals(self, offsets: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, float]:
        consumer = self._topic.consumer
        partitions = {TopicPartition(self._topic.name, number): offset for number, offset in offsets.items()}
        deadline = time.monotonic() + self._patience
        found: dict[int, float] = {}
        consumer.assign(list(partitions))
        for partition, offset in partitions.items():
            consumer.seek(partition, offset)
        waiting = set(partitions)
        while waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unreadable(f"no records within {self._patience:g} s")
            # A short wait: a partition may hold nothing but transaction markers.
            pause = max(1, round(min(left, _POLL_SECONDS) * 1000))
            for partition, records in consumer.poll(timeout_ms=pause).items():
                if partition in waiting:
                    found[partition.partition] = records[0].timestamp / 1000
                    waiting.discard(partition)
                    # A paused partition may never be read again, as TopicReader says.
                    consumer.assign(list(waiting))
            waiting -= {each for each in waiting if consumer.position(each, timeout_ms=pause) >= ends[each.partition]}
        # Drops the records that were fetched beyond the first.
        consumer.assign([])
        return found
