"""The driver has the executors read a batch: in pieces, until all of it is handed over for counting.

Where executors end while they read, each partition is read alone, in ever smaller pieces, down to single records. A
record is excluded if it ends executors again and again, and executors that read no record in between do not end.
"""

import itertools
import json
import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

from streampulse.core.errors import one_line
from streampulse.job import metrics
from streampulse.job.batches import Batches
from streampulse.job.overlap import Overlap
from streampulse.job.positions import Position
from streampulse.job.rows import Exclusion, Limit, Rows, Slice
from streampulse.job.store.exclusions import Exclusions
from streampulse.job.suspects import Suspects

log = logging.getLogger(__name__)

# Spark's words for an executor, or its Python worker, that ended under a task as often as Spark tries again.
_ENDED: Final = re.compile(r"ExecutorLostFailure|Python worker exited unexpectedly")
# A failure costs several starts of an executor, a reading that succeeds 0.2 s: pieces shrink fast.
_PIECES: Final = 32
# A record is excluded at this failure of reading it alone. Each ends as many executors as Spark tries.
_FAILURES: Final = 2


class Reading:
    """Reads the batches of one query.

    :param overlap: counts beside reading.
    :param positions: by partition where reading begins.
    """

    def __init__(
        self,
        batches: Batches,
        overlap: Overlap,
        suspects: Suspects,
        excluded: Exclusions,
        positions: dict[int, Position],
    ) -> None:
        self._batches = batches
        self._overlap = overlap
        self._suspects = suspects
        self._excluded = excluded
        self._positions = positions
        self._query_id, self._numbers = str(uuid.uuid4()), itertools.count()
        #: When the executors were last asked to read, on the monotonic clock; None while they are not.
        self.since: float | None = None

    def process(self, frame: Any, _: int) -> None:
        """Read a batch, as ``foreachBatch`` calls it.

        :raises Exception: reading fails, and not because of one record; what was read before is handed over.
        """
        left = 1
        while left:
            try:
                left = self._read(frame)
            except Exception as error:
                if not _ENDED.search(str(error)):
                    raise
                log.error("executors ended while they read; partitions are read in pieces: %s", one_line(error)[:500])
                for number in self._positions:
                    self._search(frame, number, self._offset(number) + self._read_none(frame, number))

    def _offset(self, number: int) -> int:
        return self._positions[number].offset

    def _read_none(self, frame: Any, number: int) -> int:
        return self._read(frame, number, self._offset(number))

    def _read(self, frame: Any, only: int | None = None, until: int | None = None) -> int:
        """Read a piece, hand it over for counting, and return how many offsets of the batch are left to read now.

        :param only: the one partition to read, None for all; :param until: the offset where reading it ends.
        """
        begun = self.since = time.monotonic()
        try:
            with metrics.PHASE_SECONDS.labels("decode").time():
                slices, unread = self._collect(frame, only, until)
        finally:
            self.since = None
        waiting = [
            piece.suspect is not None and self._suspects.note(piece.partition, piece.suspect) for piece in slices
        ]
        left = sum(count for count, waits in zip(unread, waiting, strict=True) if not waits)
        self._hand_over([piece for piece in slices if piece.next_offset > self._offset(piece.partition)], begun)
        return left

    def _collect(self, frame: Any, only: int | None, until: int | None) -> tuple[list[Slice], list[int]]:
        # Imported here: pyspark is there on hosts only.
        from streampulse.job.spark_source import LIMITS, POSITIONS

        positions, limits = dict(self._positions), self._limits()
        if only is not None:
            positions[only] = positions[only].up_to(until)
            limits = {number: limit for number, limit in limits.items() if number == only}
        context = frame.sparkSession.sparkContext
        context.setLocalProperty(POSITIONS, json.dumps(positions))
        context.setLocalProperty(LIMITS, json.dumps(limits))
        rows = frame.collect()
        return [Slice.decode(bytes(row["slice"])) for row in rows], [row["unread"] for row in rows]

    def _limits(self) -> Mapping[int, tuple[Limit, list[Exclusion]]]:
        """Return, for each partition that does not wait, when an event is suspect, and the exclusions ahead."""
        excluded = self._excluded.ahead({number: position.offset for number, position in self._positions.items()})
        return {number: (limit, excluded.get(number, [])) for number, limit in self._suspects.limits().items()}

    def _hand_over(self, slices: list[Slice], begun: float) -> None:
        if slices:
            batch_id = next(self._numbers)
            decoded = time.monotonic()
            self._overlap.hand_over(lambda: self._batches.process(self._query_id, batch_id, slices, begun, decoded))
            self._positions.update({piece.partition: self._batches.position(piece) for piece in slices})

    def _search(self, frame: Any, number: int, end: int) -> None:
        """Read one partition up to an offset, and exclude each record that ends executors."""
        failures = 0
        while (first := self._offset(number)) < end:
            try:
                if not self._read(frame, number, end):
                    return
            except Exception as error:
                if not _ENDED.search(str(error)):
                    raise
                # If executors end whatever they read, this raises, and nothing is excluded.
                self._read_none(frame, number)
                if end - first > 1:
                    step = -(-(end - first) // _PIECES)
                    for piece in range(first + step, end, step):
                        self._search(frame, number, piece)
                    continue
                failures += 1
                if failures == _FAILURES:
                    alone = Slice(number, 0, first, first, 0, self._positions[number].clock_us, Rows(number), [])
                    alone.exclude(end, "value: cannot be read")
                    self._hand_over([alone], time.monotonic())
