"""Send the probe's events to Kafka, one at a time."""

import contextlib
from typing import Any, Final

from kafka import KafkaProducer
from kafka.errors import KafkaError

from streampulse.core.errors import one_line
from streampulse.core.settings import KafkaSettings
from streampulse.events import partition_of

# A fraction of the whole patience, so that a lost request is retried in time.
_TRIES: Final = 3


class Unsent(Exception):  # noqa: N818 - a finding
    """Kafka has not acknowledged the event; the text says why."""


class Sender:
    """Keeps a producer and replaces it after each failure. Used by one thread.

    :param settings: the address of Kafka and the topic's name.
    :param patience: limit for Kafka, in seconds.
    """

    def __init__(self, settings: KafkaSettings, patience: float) -> None:
        self._settings = settings
        self._patience = patience
        self._producer: Any = None

    def connect(self) -> None:
        """Connect ahead of time if possible; a failure is reported by :meth:`send`."""
        try:
            self._partitions()
        except (KafkaError, OSError):
            self.close()

    def send(self, key: str, value: bytes) -> None:
        """Send one record and wait for its acknowledgement.

        :raises Unsent: Kafka has not acknowledged it in time, and will not receive it later.
        """
        name = self._settings.topic
        try:
            partition = partition_of(key.encode(), self._partitions())
            sent = self._producer.send(name, key=key.encode(), value=value, partition=partition)
            sent.get(timeout=self._patience)
        except (KafkaError, OSError) as error:
            # Buffered records would arrive late, and the producer may not recover (its topic re-created).
            self.close()
            raise Unsent(f"Kafka at {self._settings.bootstrap_servers}: {one_line(error)}") from None

    def close(self) -> None:
        """Drop the producer at once, with its buffered records."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(KafkaError, OSError):
                producer.close(timeout=0)

    def _partitions(self) -> int:
        if self._producer is None:
            milliseconds = round(self._patience * 1000)
            self._producer = KafkaProducer(
                **self._settings.client_arguments("streampulse-probe"),
                acks="all",
                # Idempotent: a retried record is stored once.
                enable_idempotence=True,
                delivery_timeout_ms=milliseconds,
                request_timeout_ms=milliseconds // _TRIES,
                max_block_ms=milliseconds // _TRIES,
                bootstrap_timeout_ms=milliseconds // _TRIES,
                reconnect_backoff_max_ms=1_000,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
        found = self._producer.partitions_for(self._settings.topic)
        if not found:
            raise KafkaError(f"there is no topic {self._settings.topic}")
        return len(found)
