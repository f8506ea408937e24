"""Where the log ends, and how the job's clients of librdkafka are configured."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition

from streampulse.events import MAX_BATCH_BYTES

log = logging.getLogger(__name__)

#: Options of every consumer of the job.
CONSUMER: Final[Mapping[str, str | int | bool]] = {
    # Needed by the client. The job's consumers assign their partitions themselves and commit nothing.
    "group.id": "streampulse-job",
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    # A connection on which nothing comes back for 5 s is opened again.
    "socket.timeout.ms": 5_000,
    "socket.connection.setup.timeout.ms": 5_000,
    "reconnect.backoff.max.ms": 1_000,
    # These bound the memory. Limits of a fetch count bytes on the wire, and the client unpacks a whole answer at once.
    # An answer is one batch, which a broker sends whatever the limit, or some small ones: with one at a time, a log of
    # single records is read at a tenth of the speed. zstd makes at most 128 KiB of 4 bytes (RFC 8878, RLE_Block), thus
    # 128 MiB of small batches. The second option limits what it makes of one batch. The client's queue counts unpacked
    # bytes and fetches nothing while it is full.
    "fetch.message.max.bytes": 4096,
    "receive.message.max.bytes": MAX_BATCH_BYTES,
    # Critical lines of librdkafka only: the job writes one itself about an absent broker.
    "log_level": 2,
}
#: Brokers that were cut off know the leaders again after this time.
SETTLED_SECONDS: Final = 3.0
#: Kafka may be away, start, or hand partitions over for this long.
PATIENCE_SECONDS: Final = 60.0


class LogLost(Exception):  # noqa: N818 - a finding
    """Kafka's log does not hold the position any more. The next start of the job decides where to read on."""


class Ends:
    """Asks Kafka where the partitions of a topic end, as a ``read_committed`` consumer sees them.

    :param client: librdkafka's options.
    :param now: the monotonic clock, in seconds.
    :param answer_seconds: limit for an answer.
    """

    def __init__(
        self,
        client: Mapping[str, str],
        topic: str,
        now: Callable[[], float] = time.monotonic,
        answer_seconds: float = 2.0,
    ) -> None:
        self._client = {**client, **CONSUMER}
        self._consumer = Consumer(self._client)
        self._topic = topic
        self._now = now
        self._answer_seconds = answer_seconds
        self._away_since: float | None = None
        self._short_since: float | None = None

    def after(self, first: Mapping[int, int]) -> dict[int, int] | None:
        """Return the offset after the last committed record of each partition, None while Kafka does not tell.

        :param first: the offsets up to which the partitions were read.
        :raises LogLost: a partition ends before that.
        :raises KafkaException: Kafka has not told for a minute.
        """
        # One request to each leader. AdminClient.list_offsets hides errors, and finds no leader again after a restart.
        wanted = [TopicPartition(self._topic, number, OFFSET_END) for number in first]
        try:
            found = self._consumer.offsets_for_times(wanted, timeout=self._answer_seconds)
            for partition in found:
                if partition.error is not None:
                    raise KafkaException(partition.error)
        except KafkaException as error:
            now = self._now()
            if self._away_since is None:
                self._away_since = now
                log.warning("Kafka does not answer: %s", error.args[0].str())
            if now - self._away_since > PATIENCE_SECONDS:
                raise
            # The client stays with a leader that is silent. A fresh one asks who leads.
            self._consumer.close()
            self._consumer = Consumer(self._client)
            return None
        self._away_since = None
        ends = {partition.partition: partition.offset for partition in found}
        short = [number for number, offset in first.items() if ends[number] < offset]
        if not short:
            self._short_since = None
            return ends
        # A broker that was cut off takes itself for a leader until it has read what happened.
        now = self._now()
        if self._short_since is None:
            self._short_since = now
        if now - self._short_since > SETTLED_SECONDS:
            number = short[0]
            raise LogLost(f"partition {number} ends at offset {ends[number]}, and {first[number]} was reached")
        return None
