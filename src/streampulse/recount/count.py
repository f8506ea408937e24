"""The counting of a recount: the job's own, in one process, up to the positions of the job's ledger."""

import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Final

from confluent_kafka import KafkaException

from streampulse.core.errors import OperatorError
from streampulse.core.kafka import Log
from streampulse.core.settings import CountingSettings, KafkaSettings, PostgresSettings
from streampulse.events import ALLOWED_FUTURE_US, ALLOWED_LATENESS_US
from streampulse.job.batches import Batches
from streampulse.job.counting.state import Presences
from streampulse.job.ends import LogLost
from streampulse.job.lost import RecordReader
from streampulse.job.positions import Position
from streampulse.job.ranges import bounded_ends, ranges
from streampulse.job.records import read_slice
from streampulse.job.rows import Slice
from streampulse.job.source import Start
from streampulse.job.store import SCHEMA, Store
from streampulse.recount.gaps import Gap
from streampulse.recount.letters import KeptLetters

_CLIENT: Final = "streampulse-recount"
_BATCH_RECORDS: Final = 250_000
_LEDGER_DAYS: Final = 3_650


class Recount:
    """Counts a topic from its oldest record into the schema of recounts, which is there.

    :param present: by partition the viewers who are present by the job's state.
    :param topics: number of topics of this name that the job has read: more than one, and the history is not whole.
    :param progress: called with the number of records so far.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        postgres: PostgresSettings,
        counting: CountingSettings,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._kafka = kafka
        self._progress = progress
        self.store = Store(
            postgres, counting.viewer_timeout_seconds * 1_000_000, counting.history_days, _LEDGER_DAYS, schema=SCHEMA
        )
        self._letters = KeptLetters(postgres)
        self._batches = Batches(self.store, self._letters)
        self._positions: dict[int, Position] = {}
        self._present: Mapping[int, Presences] = {}
        self._topic_id = ""
        #: By partition with missing records, what they can have changed.
        self.gaps: dict[int, Gap] = {}
        self.first_stamps_ms: dict[int, int | None] = {}
        self.records = 0

    def close(self) -> None:
        """Close the connections."""
        self.store.close()
        self._letters.close()

    def begin(self, topic: Log, present: Mapping[int, Presences], topics: int) -> None:
        """Go to the oldest record of each partition."""
        start = Start(dict(topic.starts), dict.fromkeys(topic.starts), [])
        self._batches.open()
        self._batches.start_topic(topic.topic_id, start)
        self._topic_id, self._present = topic.topic_id, present
        self._positions = self._batches.positions(start)
        with closing(RecordReader(self._kafka.librdkafka_options(_CLIENT), self._kafka.topic)) as reader:
            for number, first in topic.starts.items():
                message = next(reader.messages(number, first), None) if first < topic.ends[number] else None
                stamp_ms = None if message is None else message.timestamp()[1]
                self.first_stamps_ms[number] = stamp_ms
                if first or topics > 1:
                    gap = self.gaps[number] = Gap(None, None)
                    gap.begin(first, None if stamp_ms is None else stamp_ms * 1000 + ALLOWED_FUTURE_US)
                    self._batches.assume_present(number, present.get(number, {}), stamp_ms and stamp_ms * 1000)
        for number in self._positions:
            self._pass_border(number, None)

    def resume(self, topic: Log) -> None:
        """Go to the position of the state that the schema has."""
        row = self._batches.open()
        offsets = {number: row.offsets.get(number, first) for number, first in topic.starts.items()}
        start = Start(offsets, {number: row.last.get(number) for number in offsets}, [])
        self._batches.start_topic(topic.topic_id, start)
        self._topic_id = topic.topic_id
        self._positions = self._batches.positions(start)

    def count(self, ends: Mapping[int, int]) -> None:
        """Count up to the offsets, which no partition has passed.

        :raises OperatorError: Kafka or PostgreSQL does not answer, or Kafka removed records before they were read.
        """
        self._batches.excluded = self.store.exclusions(self._topic_id)
        try:
            while any(position.offset < ends[number] for number, position in self._positions.items()):
                self._batch(ends)
        except LogLost as error:
            raise OperatorError(f"Kafka's log changed while it was counted: {error}. Again: inv recount") from None
        except KafkaException as error:
            raise OperatorError(
                f"Kafka at {self._kafka.bootstrap_servers}: {error.args[0].str()} (inv doctor)"
            ) from None

    def _batch(self, ends: Mapping[int, int]) -> None:
        first = {number: position.offset for number, position in self._positions.items()}
        client = self._kafka.librdkafka_options(_CLIENT)
        begun, slices = time.monotonic(), list[Slice]()
        for part in ranges(first, bounded_ends(first, {number: ends[number] for number in first}, _BATCH_RECORDS)):
            number = part.partition
            excluded = [each for each in self._batches.excluded.get(number, []) if each.last_offset >= first[number]]
            piece = read_slice(client, self._kafka.topic, part, self._positions[number], len(first), excluded=excluded)
            if number in self.gaps:
                self.gaps[number].note(piece, self._positions[number].clock_us)
            slices.append(piece)
            self.records += piece.records
        self._batches.commit(str(uuid.uuid4()), 0, slices, begun, time.monotonic())
        for piece in slices:
            self._positions[piece.partition] = self._batches.position(piece)
            self._pass_border(piece.partition, piece.clock_us)
        self._progress(self.records)

    def _pass_border(self, number: int, clock_us: int | None) -> None:
        """Where a span was lost at the position, note its records as missing, and who is present behind it.

        :param clock_us: the partition's clock before the border.
        """
        at = self._positions[number].offset
        found = [each for each in self.store.borders(self._topic_id).get(number, ()) if each.offset == at]
        for border in found:
            gap = self.gaps.get(number)
            before_us = 0 if clock_us is None else clock_us - ALLOWED_LATENESS_US
            if gap is None:
                gap = self.gaps[number] = Gap(None, before_us)
            elif gap.complete_before_us is not None:
                gap.complete_before_us = min(before_us, gap.complete_before_us)
            gap.begin(at, border.clock_us)
            self._batches.assume_present(number, self._present.get(number, {}), border.clock_us)

    def finish(self, clocks: Mapping[int, int]) -> None:
        """Take the job's clocks where missing records can have moved them further, and commit with a snapshot.

        :param clocks: by partition, in microseconds since the epoch.
        """
        own = self._batches.clocks()
        raised = {
            number: clocks[number]
            for number, gap in self.gaps.items()
            if number in clocks and not gap.clock_is_certain(own.get(number))
        }
        self._batches.commit_snapshot(raised)

    def clocks(self) -> dict[int, int]:
        """Return each partition's clock in microseconds since the epoch; a partition without one is absent."""
        return self._batches.clocks()

    def present(self) -> dict[int, Presences]:
        """Return by partition the viewers who are present, with the time of their last event."""
        return self._batches.present()
