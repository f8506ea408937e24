"""What a batch costs, and how large tables and state are, after days of events: engine and store, no Kafka, no Spark.

Thirty days cannot be waited for, and a backlog of them would measure catching up. So the records are decoded, counted
and committed by the job's own code, into a schema of their own in the stack's own database, each batch a few simulated
minutes long. What is left out does not depend on how long the job has run: Kafka's reading and Spark's scheduling.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final

import psutil

from streampulse.core import postgres
from streampulse.core.settings import CountingSettings, PostgresSettings, load
from streampulse.events import partition_of
from streampulse.generator.faults import Faults, Record, Shares
from streampulse.generator.model import MINUTE_US, Model
from streampulse.host.measure.match import percentile
from streampulse.host.migrate import sql_directory
from streampulse.job.counting.engine import Engine
from streampulse.job.decode.slices import Decoder
from streampulse.job.rows import Slice
from streampulse.job.store import Batch, Store

_SCHEMA: Final = "streampulse_growth"
_PARTITIONS: Final = 4
_STREAMS, _USERS = 50, 20_000
_SHARES: Final = Shares(duplicates=0.01, disorder=0.02)
_MINUTES_PER_DAY: Final = 1_440
#: A batch is this much event time: a whole day is then 288 batches.
BATCH_MINUTES: Final = 5
# 2026-01-01T00:00:00Z. The times are the events' own; the wall clock has no part in what is counted.
_BEGIN_US: Final = 1_767_225_600_000_000
_TABLES: Final = ("stream_metrics_minute", "stream_presence", "batch_ledger", "job_state_snapshot", "job_state_delta")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the measurement."""
    parser.add_argument("--days", type=int, nargs="+", default=[1, 7, 30], help="after how many days (default: 1 7 30)")
    parser.add_argument("--per-minute", type=int, default=20, help="events of a simulated minute (default: 20)")


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Simulate the days and return, for each mark, the costs of its last day's batches and the sizes at its end.

    The job has to be stopped: it is the database's one writer.

    :raises OperatorError: another writer is at work.
    """
    settings = load(PostgresSettings)
    with _own_schema(settings):
        # Not by `migrate`, which finds in the schema beside this one that nothing is missing.
        _execute(settings, *(file.read_text(encoding="utf-8") for file in sorted(sql_directory().glob("*.sql"))))
        simulation = _Simulation(settings, load(CountingSettings), args.per_minute)
        marks = []
        for day in range(1, max(args.days) + 1):
            costs = simulation.day()
            if day in args.days:
                cpu = statistics.median(simulation.cpu_seconds)
                load_average = os.getloadavg()[0]
                marks.append(
                    {
                        "days": day,
                        **_costs(costs),
                        "batch_median_cpu_seconds": cpu,
                        "load_average": load_average,
                        **simulation.sizes(),
                    }
                )
        simulation.close()
    return marks


class _Simulation:
    def __init__(self, settings: PostgresSettings, counting: CountingSettings, per_minute: int) -> None:
        self._settings = settings
        # Entries are as old as the clock on the wall says, and the simulated days pass in minutes: none is old enough.
        self._store = Store(
            settings, counting.viewer_timeout_seconds * 1_000_000, counting.history_days, counting.history_days
        )
        self._store.open()
        self._engine: Engine = self._store.load()[0]
        self._model = Model(streams=_STREAMS, users=_USERS, seed=1)
        self._faults = Faults(_SHARES, seed=1)
        self._count = per_minute * BATCH_MINUTES
        self._query_id = str(uuid.uuid4())
        self._batch = 0
        self._offsets = [0] * _PARTITIONS
        #: Processor time of this side, without PostgreSQL's, of each batch of the last day.
        self.cpu_seconds: list[float] = []

    def day(self) -> list[float]:
        """Count a day's events and return what each batch cost in seconds."""
        costs = []
        self.cpu_seconds = []
        for _ in range(_MINUTES_PER_DAY // BATCH_MINUTES):
            begin_us = _BEGIN_US + self._batch * BATCH_MINUTES * MINUTE_US
            end_us = begin_us + BATCH_MINUTES * MINUTE_US
            records = list(self._faults.records(self._model.events(begin_us, end_us, self._count)))
            begun, begun_cpu = time.perf_counter(), time.process_time()
            self._commit(self._slices(records, end_us))
            costs.append(time.perf_counter() - begun)
            self.cpu_seconds.append(time.process_time() - begun_cpu)
            # As the job does now and then; here once in a simulated hour, outside of what a batch costs.
            if self._batch % (60 // BATCH_MINUTES) == 0:
                while self._engine.event_clock_us is not None and self._store.forget_old(self._engine.event_clock_us):
                    pass
        return costs

    def _slices(self, records: Sequence[Record], arrival_us: int) -> list[Slice]:
        by_partition: dict[int, list[Record]] = {}
        for record in records:
            by_partition.setdefault(partition_of(record.key, _PARTITIONS), []).append(record)
        decoder = Decoder(self._engine.partition_clocks(), _PARTITIONS)
        made: list[Slice] = []
        for number, some in sorted(by_partition.items()):
            first = self._offsets[number]
            self._offsets[number] += len(some)
            keys: list[bytes | None] = [record.key for record in some]
            values: list[bytes | None] = [record.value for record in some]
            offsets = list(range(first, first + len(some)))
            made += decoder.slices([([number] * len(some), offsets, [arrival_us] * len(some), keys, values)])
        return made

    def _commit(self, slices: list[Slice]) -> None:
        changes, accepted = self._engine.apply((piece.rows, piece.next_offset) for piece in slices)
        self._store.commit(Batch(self._query_id, self._batch, "growth", {}), self._engine, changes, accepted)
        self._batch += 1

    def sizes(self) -> dict[str, Any]:
        """Start anew, as after a crash, and return how long that took and how large everything is."""
        self._store.close()
        self._store.open()
        begun = time.perf_counter()
        self._engine = self._store.load()[0]
        seconds = time.perf_counter() - begun
        with closing(postgres.connect(self._settings, "streampulse-measure")) as connection:
            tables = {
                table: int(postgres.execute(connection, "SELECT pg_total_relation_size(%s)", (table,))[0][0])
                for table in _TABLES
            }
            # The size of the state itself. The tables' sizes include the space of removed rows.
            ((payload, rows),) = postgres.execute(
                connection,
                "SELECT (SELECT coalesce(sum(octet_length(payload)), 0) FROM job_state_snapshot)"
                " + (SELECT coalesce(sum(octet_length(payload)), 0) FROM job_state_delta),"
                " (SELECT count(*) FROM stream_metrics_minute)",
            )
        return {
            "load_seconds": seconds,
            "rows": int(rows),
            "table_bytes": tables,
            "state_payload_bytes": int(payload),
            "state_entries": self._engine.size(),
            "resident_bytes": psutil.Process().memory_info().rss,
        }

    def close(self) -> None:
        self._store.close()


def _costs(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {"batch_median_seconds": statistics.median(ordered), "batch_p95_seconds": percentile(ordered, 95)}


@contextmanager
def _own_schema(settings: PostgresSettings) -> Iterator[None]:
    """Have every connection of this process use a schema of the simulation's own, which is removed at the end."""
    _execute(settings, f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE", f"CREATE SCHEMA {_SCHEMA}")
    before = os.environ.get("PGOPTIONS")
    # Read by libpq whenever it connects.
    os.environ["PGOPTIONS"] = f"-c search_path={_SCHEMA}"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PGOPTIONS"]
        else:
            os.environ["PGOPTIONS"] = before
        _execute(settings, f"DROP SCHEMA {_SCHEMA} CASCADE")


def _execute(settings: PostgresSettings, *statements: str) -> None:
    with closing(postgres.connect(settings, "streampulse-measure")) as connection:
        for statement in statements:
            postgres.execute(connection, statement)
