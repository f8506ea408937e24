"""Cost of a batch and size of tables and state after days of events, without Kafka and Spark.

Thirty days are too long to wait for, and a backlog of them would measure catching up. So the job's own code decodes,
counts and commits the records, in a separate schema of the stack's database, in batches of a few simulated minutes.
Kafka's reading and Spark's scheduling are left out: neither depends on the job's age.
"""

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
from streampulse.job.decode.slices import Decoder, Raw
from streampulse.job.rows import Slice
from streampulse.job.store import Batch, Store

_SCHEMA: Final = "streampulse_growth"
_PARTITIONS: Final = 4
_STREAMS, _USERS = 50, 20_000
_SHARES: Final = Shares(duplicates=0.01, disorder=0.02)
_MINUTES_PER_DAY: Final = 1_440
#: Event time per batch: a whole day is 288 batches.
BATCH_MINUTES: Final = 5
# 2026-01-01T00:00:00Z. Event times start here; counting does not use the wall clock.
_BEGIN_US: Final = 1_767_225_600_000_000
_TABLES: Final = ("stream_metrics_minute", "stream_presence", "batch_ledger", "job_state_snapshot", "job_state_delta")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the measurement."""
    parser.add_argument("--days", type=int, nargs="+", default=[1, 7, 30], help="after how many days (default: 1 7 30)")
    parser.add_argument("--per-minute", type=int, default=20, help="events of a simulated minute (default: 20)")


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Simulate the days and return, for each mark, the costs of its last day's batches and the sizes at its end.

    The job has to be stopped, since the database has one writer.

    :raises OperatorError: another writer is active.
    """
    settings = load(PostgresSettings)
    with _own_schema(settings):
        # `migrate` would find the schema beside this one complete, so apply the files directly.
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
        # Pruning of entries uses the wall clock. The simulated days pass in minutes, so no entry is old enough.
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
        #: Processor time of this process, without PostgreSQL's, for each batch of the last day.
        self.cpu_seconds: list[float] = []

    def day(self) -> list[float]:
        """Count a day's events and return the seconds of each batch."""
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
            # The job prunes now and then; here once per simulated hour, outside of a batch's cost.
            if self._batch % (60 // BATCH_MINUTES) == 0:
                while self._engine.event_clock_us is not None and self._store.forget_old(self._engine.event_clock_us):
                    pass
        return costs

    def _slices(self, records: Sequence[Record], arrival_us: int) -> list[Slice]:
        by_partition: dict[int, list[Record]] = {}
        for record in records:
            by_partition.setdefault(partition_of(record.key, _PARTITIONS), []).append(record)
        clocks = self._engine.partition_clocks()
        made: list[Slice] = []
        for number, some in sorted(by_partition.items()):
            first = self._offsets[number]
            self._offsets[number] += len(some)
            keys: list[bytes | None] = [record.key for record in some]
            values: list[bytes | None] = [record.value for record in some]
            offsets = list(range(first, first + len(some)))
            raw = Raw(offsets, [arrival_us] * len(some), keys, values)
            made.append(Decoder(number, _PARTITIONS, clocks.get(number)).decode([raw]))
        return made

    def _commit(self, slices: list[Slice]) -> None:
        changes, accepted = self._engine.apply((piece.rows, piece.next_offset) for piece in slices)
        self._store.commit(Batch(self._query_id, self._batch, "growth", {}), self._engine, changes, accepted)
        self._batch += 1

    def sizes(self) -> dict[str, Any]:
        """Restart as after a crash; return the seconds that this took and all sizes."""
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
            # The size of the state itself. Table sizes include the space of removed rows.
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
    """Make every connection of this process use a temporary schema, which is removed at the end."""
    _execute(settings, f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE", f"CREATE SCHEMA {_SCHEMA}")
    before = os.environ.get("PGOPTIONS")
    # libpq reads this at each connect.
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
