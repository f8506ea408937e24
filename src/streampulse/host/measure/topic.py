"""Read the event topic back: its end offsets and the arrival of each record."""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition

from streampulse.core.errors import OperatorError
from streampulse.core.settings import KafkaSettings
from streampulse.events import InvalidEvent, parse_ts

_SECONDS: Final = 10.0
_TS: Final = re.compile(rb'"ts":"([^"\\]+)"')


class Arrival(NamedTuple):
    """One record: its position, the broker's stamp and the event's own time, in seconds since the epoch.

    ``created`` is None for a record without a readable time.
    """

    partition: int
    offset: int
    arrived: float
    created: float | None


class Topic:
    """The event topic, through a consumer without a group.

    :param settings: the address of Kafka and the topic's name.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._name = settings.topic
        self._where = settings.bootstrap_servers
        self._consumer = Consumer(
            {
                **settings.librdkafka_options("streampulse-measure"),
                "group.id": "streampulse-measure",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "log_level": 2,
            }
        )

    def ends(self) -> dict[int, int]:
        """Return by partition the offset after the newest record.

        :raises OperatorError: Kafka does not answer.
        """
        try:
            partitions = self._consumer.list_topics(self._name, timeout=_SECONDS).topics[self._name].partitions
            return {
                number: self._consumer.get_watermark_offsets(TopicPartition(self._name, number), timeout=_SECONDS)[1]
                for number in partitions
            }
        except KafkaException as error:
            raise OperatorError(f"Kafka at {self._where} does not answer: {error.args[0].str()} (inv doctor)") from None

    def between(self, first: Mapping[int, int], after_last: Mapping[int, int]) -> Iterator[Arrival]:
        """Yield the records from the first offsets up to, but excluding, the last ones; by partition in order.

        :raises OperatorError: Kafka does not return them.
        """
        wanted = {number: end for number, end in after_last.items() if end > first.get(number, 0)}
        self._consumer.assign([TopicPartition(self._name, number, first.get(number, 0)) for number in wanted])
        while wanted:
            messages = self._consumer.consume(10_000, timeout=_SECONDS)
            if not messages:
                raise OperatorError(f"Kafka at {self._where} hands out no records within {_SECONDS:g} s (inv doctor)")
            for message in messages:
                number, offset = message.partition(), message.offset()
                if message.error() is not None or number not in wanted or offset is None:
                    continue
                if offset < wanted[number]:
                    yield Arrival(number, offset, message.timestamp()[1] / 1000, _created(message.value()))
                if offset + 1 >= wanted[number]:
                    del wanted[number]

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


def _created(value: bytes | None) -> float | None:
    found = _TS.search(value or b"")
    if found is None:
        return None
    try:
        return parse_ts(found[1].decode("ascii")) / 1_000_000
    except (InvalidEvent, UnicodeDecodeError):
        return None
