"""Dead letters as their readers see them, and conditions that choose some of them."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from streampulse.answers.conditions import Where
from streampulse.answers.output import moment
from streampulse.job.rows import PRODUCER_HEADER
from streampulse.job.store.groups import shown
from streampulse.oracle.compare import GENERATION
from streampulse.oracle.reader import Bounds, TopicReader
from streampulse.oracle.reader import Letter as RawLetter

#: Letters that are read at first, from the end of the topic, when only the newest are asked for.
_NEWEST: Final = 1_000


class Source(NamedTuple):
    """The record that a letter is of."""

    partition: int
    generation: int
    offset: int


class Letter(NamedTuple):
    """One dead letter. ``at_ms`` is its arrival in the topic of the letters, in milliseconds since the epoch."""

    source: Source
    at_ms: int
    reason: str
    detail: str
    producer: str
    key: bytes | None
    value: bytes | None

    def line(self) -> str:
        """Return the letter in one line."""
        at = moment(datetime.fromtimestamp(self.at_ms / 1000, UTC))
        record = f"partition {self.source.partition} offset {self.source.offset}"
        return f"{at}  {record}  {shown(self.key) or '(no key)'}  {self.reason}  {self.detail}"


def holds(wanted: Where, letter: Letter) -> bool:
    """Tell whether a letter meets the conditions."""
    return (
        wanted.reason in (None, letter.reason)
        and wanted.stream in (None, shown(letter.key))
        and (wanted.since_ms is None or letter.at_ms >= wanted.since_ms)
    )


class Letters:
    """Reads the topic of the letters.

    :param reader: reads topics; :param topic: name of the topic of the letters; :param events: that of the events.
    """

    def __init__(self, reader: TopicReader, topic: str, events: str) -> None:
        self._reader = reader
        self._topic = topic
        self._events = events

    def all(self, wanted: Where, progress: Callable[[int], None] | None = None) -> Iterator[Letter]:
        """Yield the letters that meet the conditions, those of a partition in order."""
        spans = self._reader.bounds(self._topic)
        if wanted.since_ms is not None:
            begin = self._reader.offsets_at(self._topic, dict.fromkeys(spans, wanted.since_ms))
            spans = {number: Bounds(max(begin[number], start), end) for number, (start, end) in spans.items()}
        return self._read(spans, wanted, progress)

    def newest(self, wanted: Where, count: int) -> list[Letter]:
        """Return the newest letters that meet the conditions, the oldest of them first."""
        found: list[Letter] = []
        for number, (start, end) in self._reader.bounds(self._topic).items():
            here: list[Letter] = []
            size = max(_NEWEST, count)
            while len(here) < count and end > start:
                begin = max(start, end - size)
                piece = list(self._read({number: Bounds(begin, end)}, Where()))
                here[:0] = [letter for letter in piece if holds(wanted, letter)]
                if wanted.since_ms is not None and piece and piece[0].at_ms < wanted.since_ms:
                    break
                end, size = begin, 4 * size
            found += here
        return sorted(found, key=lambda each: each.at_ms)[-count:]

    def _read(
        self, spans: dict[int, Bounds], wanted: Where, progress: Callable[[int], None] | None = None
    ) -> Iterator[Letter]:
        for raw in self._reader.read_with_headers(self._topic, spans, progress):
            letter = self._letter(raw)
            if letter is not None and holds(wanted, letter):
                yield letter

    def _letter(self, raw: RawLetter) -> Letter | None:
        """Return a letter; None for a record that is none, or a letter about another topic."""
        headers = {name: (value or b"").decode("utf-8", errors="replace") for name, value in raw.headers}
        if headers.get("topic") != self._events:
            return None
        try:
            source = Source(int(headers["partition"]), int(headers.get(GENERATION, "0")), int(headers["offset"]))
        except (KeyError, ValueError):
            return None
        record, producer = raw.record, headers.get(PRODUCER_HEADER, "")
        reason, detail = headers.get("reason", ""), headers.get("detail", "")
        return Letter(source, record.stamp_ms, reason, detail, producer, record.key, record.value)
