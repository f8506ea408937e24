"""A second look at a batch that librdkafka cannot read, with another client.

librdkafka does not name the end of such a batch, and it reports a record with a wrong structure by silence.
"""

import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from kafka import TopicPartition
from kafka.errors import KafkaError

from streampulse.core.kafka import CannotUnpack, Topic, silence
from streampulse.core.settings import KafkaSettings

_ANSWER_SECONDS: Final = 10.0


class Batch(NamedTuple):
    """The offsets ``first`` to ``end``, which it excludes, of a batch, and whether it is damaged."""

    first: int
    end: int
    is_damaged: bool


def examine(client: Mapping[str, str], topic: str, partition: int, offset: int) -> Batch | None:
    """Read the batch that holds an offset, and return None where nothing is said about it.

    A batch without damage is returned from the offset on.

    :param client: librdkafka's options of :meth:`.KafkaSettings.librdkafka_options`.
    """
    silence()
    settings = KafkaSettings.of_librdkafka(client, topic)
    where = TopicPartition(topic, partition)
    try:
        with Topic(
            settings,
            "streampulse-job",
            _ANSWER_SECONDS,
            # librdkafka compares the checksums of aborted records too.
            isolation_level="read_uncommitted",
            auto_offset_reset="none",
            # One batch, and all of it at once: record 0046.
            max_partition_fetch_bytes=1,
            max_poll_records=2**31,
        ) as log:
            log.consumer.assign([where])
            log.consumer.seek(where, offset)
            deadline = time.monotonic() + _ANSWER_SECONDS
            while time.monotonic() < deadline:
                if log.consumer.poll(timeout_ms=1_000):
                    # An error behind the first records of a batch is raised by the next call.
                    log.consumer.poll(timeout_ms=0)
                    return Batch(offset, log.consumer.position(where), is_damaged=False)
    except CannotUnpack as error:
        if error.first <= offset <= error.last:
            return Batch(error.first, error.last + 1, is_damaged=True)
    except KafkaError:
        # Kafka is away: the caller waits for it.
        return None
    return None
