"""Events that are too far ahead of the present clocks.

A broker whose clock ran ahead lets events of its future pass rule 2. One such event would move its partition's clock,
and all honest events after it would be late. So an executor ends a slice before an event that is more than five minutes
ahead of a present clock. Its partition waits until three clocks were asked, which takes under a second if they answer.
If they agree, such events are from the future and reading goes on behind them. If not, the partition goes on waiting.
"""

import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import psycopg2
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaException, Producer

from streampulse.core import postgres
from streampulse.core.errors import one_line
from streampulse.core.settings import KafkaSettings, PostgresSettings
from streampulse.events import ALLOWED_FUTURE_US, partition_of
from streampulse.job import metrics
from streampulse.job.overlap import InBackground
from streampulse.job.rows import Limit, Suspect

log = logging.getLogger(__name__)

DRIVER: Final = "the driver's"
POSTGRESQL: Final = "PostgreSQL's"
LEADER: Final = "the partition leader's"
_AGREE_US: Final = 60_000_000
_ANSWER_SECONDS: Final = 5.0
_ASK_POSTGRESQL_EVERY_SECONDS: Final = 5.0
_ASK_AGAIN_SECONDS: Final = 3.0
# The clocks are asked again after this long, and between that their answers decide about all further suspects.
_VERDICT_SECONDS: Final = 30.0
_LEADER_SECONDS: Final = 600.0


class Clocks:
    """PostgreSQL's clock and that of a partition's leader. Each answer is in microseconds since the epoch."""

    def __init__(self, kafka: KafkaSettings, settings: PostgresSettings) -> None:
        self._kafka = kafka
        self._settings = settings
        self._producer: Any = None

    def postgresql(self) -> int:
        """Return PostgreSQL's clock.

        :raises psycopg2.Error: the server does not answer.
        """
        ((answer,),) = postgres.query(
            self._settings,
            "streampulse-job",
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
            statement_seconds=_ANSWER_SECONDS,
        )
        return int(answer)

    def leader(self, partition: int, partitions: int, now_us: int) -> int:
        """Return the clock of a partition's leader: its stamp on an event of a stream that is only for this.

        :param now_us: the time of the event.
        :raises KafkaException: the leader does not answer, or does not stamp what arrives.
        """
        if self._producer is None:
            options = {"message.timeout.ms": round(_ANSWER_SECONDS * 1000), "log_level": 2}
            self._producer = Producer({**self._kafka.librdkafka_options("streampulse-job"), **options})
        stream, value = clock_event(partition, partitions, now_us)
        answers: list[tuple[Any, Any]] = []
        self._producer.produce(
            self._kafka.topic, value, stream, partition, on_delivery=lambda *answer: answers.append(answer)
        )
        self._producer.flush(2 * _ANSWER_SECONDS)
        if not answers or answers[0][0] is not None:
            raise KafkaException(answers[0][0] if answers else "no answer")
        kind, stamp_ms = answers[0][1].timestamp()
        if kind != TIMESTAMP_LOG_APPEND_TIME:
            raise KafkaException("the topic has no message.timestamp.type=LogAppendTime: inv up")
        return int(stamp_ms) * 1000


def clock_event(partition: int, partitions: int, now_us: int) -> tuple[bytes, bytes]:
    """Return key and value of a valid event in a partition, of one of our own streams, at a time."""
    names = (f"__clock-{number}" for number in range(1_000 * partitions))
    stream = next(name for name in names if partition_of(name.encode(), partitions) == partition)
    ts = datetime.fromtimestamp(now_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = {"event_id": str(uuid.uuid4()), "ts": ts, "event_type": "stream_start", "stream_id": stream}
    return stream.encode(), json.dumps({**fields, "user_id": "streampulse-job"}).encode()


class Suspects:
    """Decides about suspect events. Reading calls :meth:`limits` and :meth:`note`, the driver's loop :meth:`look`.

    :param clocks: asks the clocks.
    :param partitions: number of partitions of the topic.
    :param is_excluded: tells whether the record of a partition at an offset is excluded; it need not be judged.
    :param monotonic: seconds that no clock's correction changes; :param wall: the driver's clock, in seconds.
    """

    def __init__(
        self,
        clocks: Clocks,
        partitions: int,
        is_excluded: Callable[[int, int], bool] = lambda *_: False,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clocks = clocks
        self._partitions = partitions
        self._is_excluded = is_excluded
        self._monotonic = monotonic
        self._wall = wall
        # How far the clocks were ahead of the monotonic one when they were asked, and when the leaders were.
        self._postgresql_us: int | None = None
        self._leaders_us: dict[int, tuple[int, float]] = {}
        self._waiting: dict[int, Suspect] = {}
        # Partitions whose clocks agreed, and until when that decides.
        self._agreed: dict[int, float] = {}
        # By partition the clock that the log named.
        self._named: dict[int, str] = {}
        self._asking: InBackground[object] | None = None
        self._ask_due = self._postgresql_due = 0.0

    def limits(self) -> dict[int, Limit]:
        """Return the limit of each partition that does not wait."""
        now = self._monotonic()
        return {
            number: Limit(
                self._lowest_us(number) + ALLOWED_FUTURE_US,
                self._agreed.get(number, 0.0) > now and differing(self._answers_us(number)) is None,
            )
            for number in range(self._partitions)
            if number not in self._waiting
        }

    def note(self, partition: int, suspect: Suspect) -> bool:
        """Note the suspect that ended a slice, and tell whether its partition waits: time may have gone on since."""
        if suspect.ts_us <= self._lowest_us(partition) + ALLOWED_FUTURE_US:
            return False
        self._agreed.pop(partition, None)
        self._waiting[partition] = suspect
        self._ask_due = 0.0
        return True

    def look(self) -> None:
        """Have the clocks asked in the background, where that is due."""
        now = self._monotonic()
        if self._asking is not None and self._asking.running:
            return
        if self._asking is not None:
            self._asking.result()
        if self._waiting and now >= self._ask_due:
            self._ask_due = now + _ASK_AGAIN_SECONDS
            self._asking = InBackground[object](self.judge)
        elif now >= self._postgresql_due:
            self._postgresql_due = now + _ASK_POSTGRESQL_EVERY_SECONDS
            self._asking = InBackground[object](self._ask_postgresql)

    def judge(self) -> None:
        """Ask the three clocks of each partition that waits, and let it go on if they agree."""
        for number, suspect in list(self._waiting.items()):
            failed = self._ask_postgresql() or self._ask_leader(number)
            answers = self._answers_us(number)
            name = failed or differing(answers)
            ahead = suspect.ts_us > min(answers.values()) + ALLOWED_FUTURE_US
            ahead = ahead and not self._is_excluded(number, suspect.offset)
            if ahead and name is not None:
                self._name(number, suspect, name, failed is not None, answers)
                continue
            if ahead:
                self._agreed[number] = self._monotonic() + _VERDICT_SECONDS
            if self._named.pop(number, None) is not None:
                self._show()
                log.info("partition %d is read on from offset %d: its clocks are right again", number, suspect.offset)
            self._waiting.pop(number, None)
            # Spark plans no task for a partition without a new record.
            if self._ask_leader(number) is not None:
                self._waiting[number] = suspect

    def _name(self, number: int, suspect: Suspect, name: str, failed: bool, answers: Mapping[str, int]) -> None:
        """Say once that a partition waits, and for which clock."""
        if self._named.get(number) == name:
            return
        self._named[number] = name
        self._show()
        log.error(
            "partition %d waits at offset %d for an event of %s: %s clock %s (%s)",
            number,
            suspect.offset,
            _text(suspect.ts_us),
            name,
            "does not answer" if failed else "differs from the other two",
            ", ".join(f"{clock} {_text(now)}" for clock, now in answers.items()),
        )

    def _show(self) -> None:
        metrics.WAITING.clear()
        for partition, clock in self._named.items():
            metrics.WAITING.labels(str(partition), clock).set(self._waiting[partition].offset)

    def _ask_postgresql(self) -> str | None:
        """Ask PostgreSQL's clock and return its name if it does not answer; its last answer is then kept."""
        try:
            self._postgresql_us = self._clocks.postgresql() - self._monotonic_us()
        except psycopg2.Error as error:
            log.debug("PostgreSQL's clock: %s", one_line(error))
            return POSTGRESQL
        return None

    def _ask_leader(self, number: int) -> str | None:
        """Ask the clock of a partition's leader like PostgreSQL's."""
        self._leaders_us.pop(number, None)
        lowest = min(self._answers_us(number).values())
        try:
            answer = self._clocks.leader(number, self._partitions, lowest) - self._monotonic_us()
        except (KafkaException, BufferError) as error:
            log.debug("the clock of partition %d's leader: %s", number, one_line(error))
            return LEADER
        self._leaders_us[number] = answer, self._monotonic()
        return None

    def _monotonic_us(self) -> int:
        return round(self._monotonic() * 1_000_000)

    def _answers_us(self, number: int) -> dict[str, int]:
        """Return the present time by the clocks that are known."""
        now = self._monotonic_us()
        answers = {DRIVER: round(self._wall() * 1_000_000)}
        if self._postgresql_us is not None:
            answers[POSTGRESQL] = now + self._postgresql_us
        leader_us, asked = self._leaders_us.get(number, (0, -_LEADER_SECONDS))
        if self._monotonic() - asked < _LEADER_SECONDS:
            answers[LEADER] = now + leader_us
        return answers

    def _lowest_us(self, number: int) -> int:
        return min(self._answers_us(number).values())


def differing(answers: Mapping[str, int]) -> str | None:
    """Return the name of the clock that is farthest from the middle one, None if all agree within a minute."""
    times = sorted(answers.values())
    if times[-1] - times[0] <= _AGREE_US:
        return None
    middle = times[len(times) // 2]
    return max(answers, key=lambda name: abs(answers[name] - middle))


def _text(us: int) -> str:
    return datetime.fromtimestamp(us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
