"""The topic as a source of Spark's (Python Data Source API): the driver's side plans, executors read and decode.

Spark names the end of each batch. With each pass over a batch the job says in local properties of Spark's where reading
begins, with which clock, and which events are suspect: it knows what the pass before has read.

Spark starts several Python processes for a source, one after the other. Each imports this module, so what only some of
them need is imported where it is used.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from pyspark import TaskContext
from pyspark.sql.datasource import DataSource, DataSourceReader, DataSourceStreamReader, InputPartition
from pyspark.sql.streaming.datasource import ReadLimit, ReadMaxRows

from streampulse.job.positions import LastRecord, Position
from streampulse.job.ranges import Range, bounded_ends, ranges

#: Local property: for each partition the position that reading goes on from.
POSITIONS: Final = "streampulse.positions"
#: Local property: for each partition that does not wait, when an event is suspect, and its excluded records.
LIMITS: Final = "streampulse.limits"
_PLAN: Final = "streampulse.plan"


def options(
    client: Mapping[str, str], topic: str, first: Mapping[int, int], partitions: int, max_records: int
) -> dict[str, str]:
    """Return the source's options.

    :param client: librdkafka's options.
    :param first: by partition the offset that the first batch begins at.
    :param partitions: number of partitions of the topic.
    :param max_records: maximum number of records in a batch.
    """
    return {**client, _PLAN: json.dumps([topic, dict(first), partitions, max_records])}


class LogSource(DataSource):  # type: ignore[misc]
    """One topic. Each row is an encoded slice, and how many offsets of its range are still to be read."""

    @classmethod
    def name(cls) -> str:
        """Return the name for ``format``."""
        return "streampulse"

    def schema(self) -> str:
        """Return the columns."""
        return "slice binary, unread bigint"

    def streamReader(self, schema: Any) -> LogReader:  # noqa: ARG002, N802 - Spark's name
        """Return the reader of a query."""
        return LogReader(dict(self.options))

    def reader(self, schema: Any) -> WarmUp:  # noqa: ARG002
        """Return a reader that only has the executors' Python workers started."""
        return WarmUp(dict(self.options))


class LogReader(DataSourceStreamReader):  # type: ignore[misc]
    """Plans batches, in a process beside the driver; reads ranges, in the executors' Python workers."""

    def __init__(self, given: dict[str, str]) -> None:
        self._topic, first, self._partitions, self._max_records = json.loads(given.pop(_PLAN))
        self._client = given
        self._first: dict[str, int] = first
        self._ends: Any = None
        self._newest: dict[str, int] | None = None

    def initialOffset(self) -> dict[str, int]:  # noqa: N802 - Spark's name, as those below
        """Return where the query begins."""
        return self._first

    def getDefaultReadLimit(self) -> ReadLimit:  # noqa: N802
        """Return the maximum size of a batch."""
        return ReadMaxRows(self._max_records)

    def latestOffset(self, start: dict[str, int], limit: ReadLimit) -> dict[str, int]:  # noqa: N802
        """Return where the batch ends that begins at ``start``: there, where nothing waits."""
        if self._ends is None:
            from streampulse.core import logs
            from streampulse.job.ends import Ends

            logs.configure(relayed=True)
            self._ends = Ends(self._client, self._topic)
        first = _numbered(start)
        ends = self._ends.after(first)
        if ends is None:
            return start
        self._newest = _named(ends)
        return _named(bounded_ends(first, ends, limit.max_rows if isinstance(limit, ReadMaxRows) else None))

    def reportLatestOffset(self) -> dict[str, int] | None:  # noqa: N802
        """Return where the partitions ended when they were last asked."""
        return self._newest

    def partitions(self, start: dict[str, int], end: dict[str, int]) -> list[InputPartition]:
        """Return a task for each partition that has something to read."""
        return [InputPartition(part) for part in ranges(_numbered(start), _numbered(end))]

    def read(self, partition: InputPartition) -> Iterator[Any]:
        """Read what is left of a range: nothing, or one slice."""
        import pyarrow as pa

        from streampulse.job.records import read_slice
        from streampulse.job.rows import Exclusion, Limit

        part: Range = partition.value
        limits = json.loads(TaskContext.get().getLocalProperty(LIMITS))
        positions = json.loads(TaskContext.get().getLocalProperty(POSITIONS))
        offset, clock, last, until = positions[str(part.partition)]
        position = Position(offset, clock, last and LastRecord(*last), until)
        if position.offset >= part.end or str(part.partition) not in limits:
            return
        limit, excluded = limits[str(part.partition)]
        piece = read_slice(
            self._client,
            self._topic,
            part,
            position,
            self._partitions,
            Limit(*limit),
            [Exclusion(*each) for each in excluded],
        )
        unread = part.end - piece.next_offset
        columns = [pa.array([piece.encode()], pa.binary()), pa.array([unread], pa.int64())]
        yield pa.RecordBatch.from_arrays(columns, names=["slice", "unread"])
        _freeze()


class WarmUp(DataSourceReader):  # type: ignore[misc]
    """Has two Python workers started, so that ready means quick."""

    def __init__(self, given: dict[str, str]) -> None:
        given.pop(_PLAN)
        self._client = given

    def partitions(self) -> list[InputPartition]:
        """Return a task for each worker."""
        return [InputPartition(0), InputPartition(1)]

    def read(self, partition: InputPartition) -> Iterator[Any]:  # noqa: ARG002
        """Make the worker's consumer and return no row."""
        from streampulse.job.records import consumer

        consumer(self._client)
        return iter(())


@cache
def _freeze() -> None:
    """Have garbage collection pass over what a Python worker has imported when its first slice is written.

    Spark collects after each task. Looking at the modules again took two thirds of a worker's time at 60 events/s.
    """
    gc.freeze()


def _numbered(offsets: Mapping[str, int]) -> dict[int, int]:
    return {int(number): offset for number, offset in offsets.items()}


def _named(offsets: Mapping[int, int]) -> dict[str, int]:
    return {str(number): offset for number, offset in offsets.items()}
