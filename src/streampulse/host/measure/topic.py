"""Read the event topic back: its end offsets and the arrival of each record."""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from streampulse.core.settings import KafkaSettings
from streampulse.events import InvalidEvent, parse_ts
from streampulse.oracle.reader import Bounds, TopicReader

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
        self._reader = TopicReader(settings)

    def ends(self) -> dict[int, int]:
        """Return by partition the offset after the newest record.

        :raises OperatorError: Kafka does not answer.
        """
        return {number: bounds.end for number, bounds in self._reader.bounds(self._name).items()}

    def between(self, first: Mapping[int, int], after_last: Mapping[int, int]) -> Iterator[Arrival]:
        """Yield the records from the first offsets up to, but excluding, the last ones; by partition in order.

        :raises OperatorError: Kafka does not return them.
        """
        spans = {number: Bounds(first.get(number, 0), end) for number, end in after_last.items()}
        for record in self._reader.read(self._name, spans):
            yield Arrival(record.partition, record.offset, record.stamp_ms / 1000, _created(record.value))

    def close(self) -> None:
        """Close the consumer."""
        self._reader.close()


def _created(value: bytes | None) -> float | None:
    found = _TS.search(value or b"")
    if found is None:
        return None
    try:
        return parse_ts(found[1].decode("ascii")) / 1_000_000
    except (InvalidEvent, UnicodeDecodeError):
        return None
