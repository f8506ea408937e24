"""An idempotent Kafka sender with bounded memory that waits for an absent broker."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterable
from typing import Any, Final

from kafka import KafkaProducer
from kafka.errors import KafkaError

from streampulse.core.settings import KafkaSettings
from streampulse.generator.faults import Record

log = logging.getLogger(__name__)

#: Maximum number of unacknowledged records, some 100 MB: the client itself has no limit.
MAX_PENDING: Final = 50_000
# Records that wait longer than this for a broker are dropped: such old events are of little use.
_DELIVERY_TIMEOUT_MS: Final = 120_000
_FLUSH_SECONDS: Final = 10.0
# Log a line when records wait for this long without an acknowledgement.
_QUIET_SECONDS: Final = 5.0
_NUDGE_SECONDS: Final = 1.0
# After failures without a success for this long, replace the producer: it may not recover, for example when its topic
# was re-created.
_RENEW_AFTER_SECONDS: Final = 30.0


class Sender:
    """Sends records to one topic and counts the outcomes. Created and used by one thread.

    ``sent`` counts acknowledged records, ``failed`` those given up, ``skipped`` those rejected because too many were
    waiting.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer: KafkaProducer | None = None
        self._lock = threading.Lock()
        self._handed_over = 0
        self._renewed_at = time.monotonic()
        self._nudged_at = 0.0
        self._said_quiet = False
        self._failing = False
        self.sent = 0
        self.failed = 0
        self.skipped = 0
        #: time.monotonic() and time.time() of the last acknowledgement; 0 before the first.
        self.last_ack_monotonic = 0.0
        self.last_ack_timestamp = 0.0

    @property
    def pending(self) -> int:
        """Return the number of unacknowledged records."""
        return self._handed_over - self.sent - self.failed

    def connect(self) -> str | None:
        """Try to reach Kafka and find the topic; return None on success, otherwise the reason."""
        try:
            if self._producer is None:
                self._producer = self._make_producer()
            if self._producer.partitions_for(self._settings.topic):
                return None
        except (KafkaError, OSError) as error:
            return f"{type(error).__name__}: {error}"
        return f"topic {self._settings.topic} does not exist"

    def send(self, records: Iterable[Record]) -> None:
        """Enqueue records; the counters show their outcome later. Call :meth:`connect` first."""
        assert self._producer is not None  # noqa: S101 - connect comes first
        self._look_after()
        send, topic = self._producer.send, self._settings.topic
        for record in records:
            if self.pending >= MAX_PENDING:
                self.skipped += 1
                continue
            self._handed_over += 1
            try:
                future = send(topic, key=record.key, value=record.value)
            except KafkaError as error:
                self._count_failure(error)
                continue
            future.add_callback(self._count_success)
            future.add_errback(self._count_failure)

    def close(self) -> None:
        """Flush for at most some seconds, then close the connection."""
        if self._producer is None:
            return
        try:
            self._producer.flush(timeout=_FLUSH_SECONDS)
        except KafkaError as error:
            log.warning("gave up on unsent events", extra={"fields": {"pending": self.pending, "error": error}})
        self._producer.close(timeout=2)
        self._producer = None

    def _make_producer(self) -> KafkaProducer:
        return KafkaProducer(
            **self._settings.client_arguments("streampulse-generator"),
            enable_idempotence=True,
            acks="all",
            compression_type="lz4",
            linger_ms=5,
            batch_size=131_072,
            delivery_timeout_ms=_DELIVERY_TIMEOUT_MS,
            request_timeout_ms=10_000,
            reconnect_backoff_max_ms=1_000,
            bootstrap_timeout_ms=5_000,
            # This also bounds one blocking call, so that the watchdog ping is in time.
            max_block_ms=2_000,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def _look_after(self) -> None:
        """Log when acknowledgements stop and resume; replace a producer that cannot recover."""
        now = time.monotonic()
        quiet_seconds = now - max(self.last_ack_monotonic, self._renewed_at)
        if self.pending and quiet_seconds > _QUIET_SECONDS and not self._said_quiet:
            self._said_quiet = True
            log.warning("Kafka acknowledges nothing", extra={"fields": self.counts()})
        elif self._said_quiet and now - self.last_ack_monotonic < _QUIET_SECONDS:
            self._said_quiet = False
            log.info("Kafka acknowledges again", extra={"fields": self.counts()})
        if self._said_quiet and self._producer is not None and now - self._nudged_at > _NUDGE_SECONDS:
            # The client's thread has been seen asleep with records waiting and the broker up; a flush wakes it.
            self._nudged_at = now
            with contextlib.suppress(KafkaError):
                self._producer.flush(timeout=0.01)
        if self._failing and quiet_seconds > _RENEW_AFTER_SECONDS:
            self._renewed_at = now
            log.warning("nothing but failures: starting over with a new producer", extra={"fields": self.counts()})
            try:
                renewed = self._make_producer()
            except (KafkaError, OSError):
                return
            if self._producer is not None:
                self._producer.close(timeout=0)
            self._producer = renewed

    def counts(self) -> dict[str, int]:
        """Return the counters by name."""
        return {"sent": self.sent, "failed": self.failed, "skipped": self.skipped, "pending": self.pending}

    # Called by the client's thread, and by the caller's when a send fails at once.
    def _count_success(self, _: Any) -> None:
        with self._lock:
            self.sent += 1
            self._failing = False
        self.last_ack_monotonic = time.monotonic()
        self.last_ack_timestamp = time.time()

    def _count_failure(self, error: BaseException) -> None:
        with self._lock:
            self.failed += 1
            first = not self._failing
            self._failing = True
        if first:
            log.warning("event not delivered", extra={"fields": {"error": error, **self.counts()}})
