"""What runs on the executors: one task for each Kafka partition of a batch, from Arrow batches to encoded slices."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from typing import Any

from streampulse.job.decode.slices import Decoder

_modules_are_frozen = False


def _freeze_modules() -> None:
    """Take what is imported by now out of the garbage collector's sight, once for each worker process.

    Spark's Python workers run a full collection after every task. With pandas and pyarrow loaded that was a third of
    a worker's time at 300 events/s; what is imported never becomes garbage.
    """
    global _modules_are_frozen
    if not _modules_are_frozen:
        _modules_are_frozen = True
        gc.freeze()


class ArrowDecoder:
    """What ``DataFrame.mapInArrow`` calls on an executor: Kafka rows in, one encoded :class:`Slice` a row out."""

    def __init__(self, clocks: Mapping[int, int], partitions: int) -> None:
        self._clocks = dict(clocks)
        self._partitions = partitions

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Decode the Arrow batches of one task.

        :param batches: record batches with the columns key, value, partition, offset, timestamp.
        :returns: record batches of the one binary column ``slice``.
        """
        import pyarrow as pa

        def columns() -> Iterator[tuple[list[int], list[int], list[int], list[bytes | None], list[bytes | None]]]:
            for batch in batches:
                yield (
                    batch.column("partition").to_pylist(),
                    batch.column("offset").to_pylist(),
                    batch.column("timestamp").cast(pa.int64()).to_pylist(),
                    batch.column("key").to_pylist(),
                    batch.column("value").to_pylist(),
                )

        _freeze_modules()
        for piece in Decoder(self._clocks, self._partitions).slices(columns()):
            yield pa.RecordBatch.from_arrays([pa.array([piece.encode()], type=pa.binary())], names=["slice"])
