"""The job without Spark: what the driver and the executors do, in the test's own process."""

import time
import uuid

from streampulse.core.errors import OperatorError
from streampulse.core.settings import CountingSettings, KafkaSettings, PostgresSettings
from streampulse.job.batches import Batches
from streampulse.job.command import begin
from streampulse.job.dead_letters import DeadLetters
from streampulse.job.positions import Position
from streampulse.job.ranges import BATCH_BYTES, Range
from streampulse.job.records import read_slice
from streampulse.job.rows import NO_LIMIT, Limit, Slice
from streampulse.job.shards import ALONE, Shard
from streampulse.job.source import Start
from streampulse.job.store import Store
from streampulse.oracle.command import Report, verify

TIMEOUT_SECONDS = 6 * 3_600
PATIENCE_SECONDS = 30.0


class Pipeline:
    """One topic, read into one database. Start it first, as often as a driver would be started."""

    def __init__(self, kafka: KafkaSettings, postgres: PostgresSettings, shard: Shard = ALONE) -> None:
        self._kafka = kafka
        self._postgres = postgres
        self.store = Store(postgres, TIMEOUT_SECONDS * 1_000_000, history_days=30, ledger_days=2, shard=shard)
        self.letters = DeadLetters(kafka, shard)
        self.batches = Batches(self.store, self.letters)
        self.positions: dict[int, Position] = {}
        self._partitions = 0

    def start(self) -> Start:
        """Begin as the driver does, and return where reading goes on."""
        self.stop()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                found = begin(self._kafka, self.store, self.letters, self.batches)
            except OperatorError:
                # The server needs a moment to notice the closed connection and to release its lock.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                break
        self.positions = self.batches.positions(found)
        self._partitions = found.partitions
        #: The excluded records ahead. The driver has them looked for; tests call ``ask``.
        self.excluded = self.batches.exclusions_ahead(self.letters.written)
        return found

    def stop(self) -> None:
        self.store.close()
        self.letters.close()

    def read(self, number: int, end: int, limit: Limit = NO_LIMIT) -> list[Slice]:
        """Read a partition up to an offset or a suspect event, in as many slices as an executor needs."""
        client, found = self._kafka.librdkafka_options("streampulse-job"), list[Slice]()
        while self.positions[number].offset < end:
            part = Range(number, end, BATCH_BYTES)
            position, partitions = self.positions[number], self._partitions
            excluded = self.excluded.ahead({number: position.offset}).get(number, [])
            piece = read_slice(client, self._kafka.topic, part, position, partitions, limit, excluded)
            piece = Slice.decode(piece.encode())
            self.positions[number] = self.batches.position(piece)
            found.append(piece)
            if piece.suspect is not None:
                break
        return found

    def count(self, number: int, end: int) -> None:
        """Read a partition up to an offset and commit each slice as a batch."""
        self.commit(self.read(number, end))

    def commit(self, slices: list[Slice]) -> None:
        for piece in slices:
            self.batches.process(str(uuid.uuid4()), 0, [piece], time.monotonic())

    def verify(self) -> Report:
        return verify(
            self._kafka, self._postgres, CountingSettings(viewer_timeout_seconds=TIMEOUT_SECONDS, history_days=30)
        )

    def equal(self, *, whole: bool = False) -> Report:
        """Verify, and expect that all is equal; with ``whole``, that nothing was left out."""
        report = self.verify()
        assert report.differences == []
        assert not whole or report.not_checked == []
        return report
