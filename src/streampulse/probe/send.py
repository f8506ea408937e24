"""Bringing the probe's events to Kafka, one at a time."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from kafka import KafkaProducer
from kafka.errors import KafkaError

from streampulse.core.errors import one_line
from streampulse.core.settings import KafkaSettings
from streampulse.events import partition_of

# Of the whole patience, so that a request whose answer was lost is made again in time.
_TRIES: Final = 3


class Unsent(Exception):  # noqa: N818 - a finding
    """Kafka has not taken the event; the text says why."""


class Sender:
    """Keeps a producer, and makes another after each failure. Used by one thread.

    :param settings: where Kafka is and what the topic is called.
    :param patience: how long Kafka may take, in seconds.
    """

    def __init__(self, settings: KafkaSettings, patience: float) -> None:
        self._settings = settings
        self._patience = patience
        self._producer: Any = None

    def connect(self) -> None:
        """Connect ahead of time, where that can be done; where not, :meth:`send` will say why."""
        try:
            self._partitions()
        except (KafkaError, OSError):
            self.close()

    def send(self, key: str, value: bytes) -> None:
        """Send one record and wait until Kafka has it.

        :raises Unsent: it has not taken it in time. It will not get it later either.
        """
        name = self._settings.topic
        try:
            partition = partition_of(key.encode(), self._partitions())
            sent = self._producer.send(name, key=key.encode(), value=value, partition=partition)
            sent.get(timeout=self._patience)
        except (KafkaError, OSError) as error:
            # What it still holds would come late, and it may be beyond recovery (its topic made anew).
            self.close()
            raise Unsent(f"Kafka at {self._settings.bootstrap_servers}: {one_line(error)}") from None

    def close(self) -> None:
        """Let go of the producer at once, and of what it still holds."""
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
                # One that has to be sent again is still one.
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
