"""Dead letters of a recount: those that are due by it, in a table, and those that were sent, in the topic."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import psycopg2.extensions
from psycopg2.extras import execute_values

from streampulse.core.settings import KafkaSettings, PostgresSettings
from streampulse.job.positions import generation
from streampulse.job.rows import DeadLetter
from streampulse.oracle.reader import Bounds, Letter, TopicReader
from streampulse.recount import schema

_KEEP: Final = "INSERT INTO streampulse_recount.letters VALUES %s ON CONFLICT DO NOTHING"


class KeptLetters:
    """Takes the place of :class:`~streampulse.job.dead_letters.DeadLetters`: letters go into a table."""

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self._connection: psycopg2.extensions.connection | None = None
        self.lost: dict[int, list[int]] = {}

    def go_back(self, offsets: dict[int, int]) -> None:
        """Refuse: a recount begins at the oldest record and finds no lost span itself."""
        raise NotImplementedError(offsets)

    def write(
        self,
        letters: Sequence[DeadLetter],
        next_offsets: dict[int, int],  # noqa: ARG002 - the position is the ledger's
        on_progress: Callable[[], None] = lambda: None,  # noqa: ARG002
    ) -> int:
        """Keep a batch's letters, and return how many there are."""
        if not letters:
            return 0
        if self._connection is None:
            self._connection = schema.connect(self._settings)
        with self._connection, self._connection.cursor() as cursor:
            rows = [
                (each.partition, each.offset, each.reason, each.detail.encode(), each.key, each.value, each.producer)
                for each in letters
            ]
            execute_values(cursor, _KEEP, rows, page_size=1_000)
        return len(letters)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Sent(NamedTuple):
    """A letter that was sent: its reason, and its offset in the topic of the dead letters."""

    reason: str
    offset: int


class SentLetters:
    """The letters that were sent about records that the log has now.

    :param starts: by partition the first offset that the log has.
    :param lost: by partition the first offset of each lost span, in the order in which they were noted.
    :param first_stamps_ms: where the topic was made again, by partition the arrival of its first record: letters from
        before it are of the earlier topic.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        starts: dict[int, int],
        lost: dict[int, list[int]],
        first_stamps_ms: dict[int, int | None] | None,
    ) -> None:
        self._kafka = kafka
        self._starts = starts
        self._lost = lost
        self._first_stamps_ms = first_stamps_ms
        self._read_up_to: dict[int, int] = {}
        self.found: dict[tuple[int, int], Sent] = {}
        #: Whether the topic still holds every letter.
        self.whole = True
        #: The offset after the last letter that was read.
        self.end = 0

    def read(self) -> None:
        """Read on, up to the topic's present end.

        :raises OperatorError: Kafka does not answer.
        """
        reader = TopicReader(self._kafka)
        try:
            bounds = reader.bounds(self._kafka.dlq_topic)
            spans = {n: Bounds(max(each.start, self._read_up_to.get(n, 0)), each.end) for n, each in bounds.items()}
            for letter in reader.read_with_headers(self._kafka.dlq_topic, spans):
                self._note(letter)
        finally:
            reader.close()
        self._read_up_to = {number: each.end for number, each in bounds.items()}
        self.whole = self.whole and all(each.start == 0 for each in bounds.values())
        self.end = max(self._read_up_to.values(), default=0)

    def _note(self, letter: Letter) -> None:
        headers = {name: (value or b"").decode(errors="replace") for name, value in letter.headers}
        try:
            source = int(headers["partition"]), int(headers["offset"])
            of_generation = int(headers.get("generation", "0"))
        except (KeyError, ValueError):
            return
        number, offset = source
        if headers.get("topic") != self._kafka.topic or offset < self._starts.get(number, offset + 1):
            return
        if of_generation != generation(self._lost.get(number, ()), offset):
            return
        if self._first_stamps_ms is not None:
            first = self._first_stamps_ms.get(number)
            if first is None or letter.record.stamp_ms < first:
                return
        self.found[source] = Sent(headers.get("reason", ""), letter.record.offset)

    def presumed(self) -> dict[int, int]:
        """Return by partition the offset below which letters are taken as sent: the topic lost its beginning."""
        if self.whole:
            return {}
        oldest: dict[int, int] = {}
        for number, offset in self.found:
            oldest[number] = min(offset, oldest.get(number, offset))
        return {number: oldest.get(number, 2**62) for number in self._starts}
