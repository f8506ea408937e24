"""``streampulse job``: the driver of the streaming job. Started by spark-submit, supervised by systemd.

The driver ends on every fault that it cannot repair itself. Its supervisor starts it again, and it goes on from the
position that PostgreSQL has.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg2
import sdnotify
from kafka.errors import KafkaError

from streampulse.core import logs as logfmt
from streampulse.core.errors import OperatorError, SettingsError, one_line
from streampulse.core.kafka import Log, Topic
from streampulse.core.metrics import serve
from streampulse.core.settings import JobSettings, KafkaSettings, PostgresSettings, load
from streampulse.job import metrics
from streampulse.job.batches import Batches
from streampulse.job.dead_letters import DeadLetters
from streampulse.job.decode.arrow import ArrowDecoder
from streampulse.job.rows import Slice
from streampulse.job.source import Start, decide_start
from streampulse.job.store import Store

log = logging.getLogger(__name__)
Result = TypeVar("Result")

_LOOK_EVERY_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 15.0
_ASK_QUERY_EVERY_SECONDS: Final = 5.0
# The name of a run's folder: see fresh_checkpoint.
_RUN: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse job``: none, its settings are the environment's."""
    del parser


def run(args: argparse.Namespace) -> int:
    """Run the driver until it is ended or cannot go on, for a reason that is logged: always 1."""
    del args
    # spark-submit's JVM copies what the driver writes to its own output.
    logfmt.configure(relayed=True)
    try:
        return _drive()
    except (OperatorError, SettingsError) as error:
        log.error("%s", error)
        return 1


def _drive() -> int:
    """Run the driver.

    :raises OperatorError: a service that it needs does not answer, or another driver is the writer.
    :raises SettingsError: a setting is missing.
    """
    # One warning a connection attempt while a broker restarts is noise beside the job's own words.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    logging.getLogger("py4j").setLevel(logging.WARNING)
    kafka, postgres, settings = load(KafkaSettings), load(PostgresSettings), load(JobSettings)
    store = Store(postgres, settings.viewer_timeout_seconds * 1_000_000, settings.history_days, settings.ledger_days)
    letters = DeadLetters(kafka)
    batches = Batches(store, letters)
    # Spark's own start takes longer than everything else here, so the two run side by side.
    session = _InBackground(_session)
    try:
        next_offsets, topic_id = _patiently("PostgreSQL", batches.open)
        with Topic(kafka, "streampulse-job", _ANSWER_SECONDS, isolation_level="read_uncommitted") as reader:
            topic = _patiently("Kafka", reader.log)
        start = decide_start(topic, next_offsets, topic_id)
        _patiently("Kafka", lambda: letters.open(len(topic.starts), topic.topic_id))
        batches.start_topic(topic.topic_id, start)
    except psycopg2.Error as error:
        raise OperatorError(f"PostgreSQL at {postgres.host}:{postgres.port}: {one_line(error)} (inv doctor)") from None
    except KafkaError as error:
        raise OperatorError(f"Kafka at {kafka.bootstrap_servers}: {one_line(error)} (inv doctor)") from None
    serve_metrics(settings.metrics_host, settings.metrics_port)
    # The state is millions of objects without cycles; looking for some after every two thousand new ones took a third
    # of the counting's time. It is still done, a fiftieth as often.
    gc.set_threshold(100_000, 20, 100)
    driver = Driver(batches, topic, settings, kafka)
    return driver.run(session.result(), start)


class Driver:
    """Runs the query and tells systemd how it is."""

    def __init__(self, batches: Batches, topic: Log, settings: JobSettings, kafka: KafkaSettings) -> None:
        self._batches = batches
        self._topic = topic
        self._settings = settings
        self._kafka = kafka
        self._notifier = sdnotify.SystemdNotifier()
        self._busy = False
        self._tracker: Any = None
        self._seen: object = None
        self._look_due = 0.0

    def run(self, session: Any, start: Start) -> int:
        """Run the query from ``start`` until it ends, which is always a failure: 1."""
        query = self._start(session, start)
        # Asked for once: each dot is a call into the JVM.
        self._tracker = session.sparkContext._jsc.sc().statusTracker()
        self._warm_up(session)
        ready = False
        try:
            while query.isActive:
                if self._stalled():
                    log.error(
                        "the batch got no step further within %d s",
                        self._settings.stall_seconds,
                        extra={"fields": {"batch_id": self._batches.batch_id}},
                    )
                    return 1
                if not ready and (self._batches.commits or self._idle(query)):
                    ready = True
                    self._notifier.notify("READY=1")
                    log.info("running", extra={"fields": {"query_id": query.id}})
                moved = ready and self._moves(query)
                # A batch under way has the stall limit, which is longer than the watchdog's.
                if not ready or moved or self._busy:
                    self._notifier.notify("WATCHDOG=1")
                time.sleep(_LOOK_EVERY_SECONDS)
            failure = query.exception()
            log.error("the query has ended: %s", failure and one_line(failure)[:500])
        finally:
            self._notifier.notify("STOPPING=1")
        return 1

    def _start(self, session: Any, start: Start) -> Any:
        kafka = self._kafka
        reader = (
            session.readStream.format("kafka")
            .option("subscribe", kafka.topic)
            .option("startingOffsets", start.spark_option(kafka.topic))
            .option("failOnDataLoss", "true")
            .option("maxOffsetsPerTrigger", self._settings.max_offsets_per_trigger)
            # A topic that is remade has other partitions; one task for each keeps their records in order.
            .options(**kafka.spark_options())
            .option("kafka.isolation.level", "read_committed")
        )
        checkpoint = fresh_checkpoint(Path(self._settings.checkpoint_dir))
        query_id = str(uuid.uuid4())

        def process(frame: Any, batch_id: int) -> None:
            self._busy = True
            try:
                self._batches.process(query_id, batch_id, lambda clocks: self._decode(frame, clocks))
            finally:
                self._busy = False

        return (
            reader.load()
            .writeStream.foreachBatch(process)
            .option("checkpointLocation", checkpoint.as_uri())
            .trigger(processingTime=f"{self._settings.trigger_interval_ms} milliseconds")
            .start()
        )

    def _warm_up(self, session: Any) -> None:
        """Have executors and their Python workers started and everything imported, so that ready means quick."""
        rows = session.range(0, 2, 1, 2).selectExpr(
            "CAST(NULL AS BINARY) AS key",
            "CAST(NULL AS BINARY) AS value",
            "CAST(id AS INT) AS partition",
            "id AS offset",
            "current_timestamp() AS timestamp",
        )
        self._decode(rows, {})

    def _decode(self, frame: Any, clocks: dict[int, int]) -> list[Slice]:
        decoder = ArrowDecoder(clocks, len(self._topic.starts))
        columns = frame.select("key", "value", "partition", "offset", "timestamp")
        return [Slice.decode(bytes(row[0])) for row in columns.mapInArrow(decoder, "slice binary").collect()]

    def _stalled(self) -> bool:
        """Tell whether a batch is under way that has not got a step further for too long."""
        return self._busy and time.monotonic() - self._batches.alive_at > self._settings.stall_seconds

    def _moves(self, query: Any) -> bool:
        """Tell whether the query or its batch has moved since the last look; the query is asked every few seconds."""
        now = time.monotonic()
        if now < self._look_due:
            return False
        self._look_due = now + _ASK_QUERY_EVERY_SECONDS
        # Spark reports on its triggers at least every ten seconds, also when there is nothing to read.
        progress = query.lastProgress
        if progress:
            metrics.LAG_RECORDS.set(records_behind(progress["sources"][0]["latestOffset"], self._batches.read_up_to))
            metrics.note_progress(progress)
        # The tracker counts the driver as one of them.
        metrics.EXECUTORS.set(max(0, len(self._tracker.getExecutorInfos()) - 1))
        seen = (progress and progress["timestamp"], self._batches.alive_at)
        moved = seen != self._seen
        self._seen = seen
        return moved

    @staticmethod
    def _idle(query: Any) -> bool:
        """Tell whether the query has looked for records and found none."""
        status = query.status
        return not status["isTriggerActive"] and status["message"].startswith("Waiting for")


def records_behind(latest: str | None, read_up_to: dict[int, int]) -> int:
    """Return how many records the log has beyond those that are committed, over all partitions.

    :param latest: the ends of the topic's partitions as Spark's Kafka source writes them:
        ``{"<topic>": {"<partition>": offset}}`` (Structured Streaming and Kafka, "Source-specific metrics"); nothing,
        or ``null``, while the source has not asked for them yet.
    :param read_up_to: by partition the offset after the last record that was committed.
    """
    topics = (json.loads(latest) if latest else None) or {}
    ends = {int(number): offset for topic in topics.values() for number, offset in topic.items()}
    return sum(max(0, end - read_up_to.get(number, 0)) for number, end in ends.items())


def _patiently(name: str, action: Callable[[], Result]) -> Result:
    """Do something that needs a service which may be starting itself, and try again for a while.

    Spark starts at the same time: waiting here, and not before the driver starts, makes a start short.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return action()
        except (psycopg2.OperationalError, KafkaError) as error:
            if time.monotonic() > deadline:
                raise
            log.warning("%s does not answer yet: %s", name, one_line(error))
            time.sleep(_LOOK_EVERY_SECONDS)


class _InBackground:
    """Calls a function in a thread and hands over its result or its exception."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001 - handed over to the caller of result()
            self._error = error

    def result(self) -> Any:
        """Wait for the function to end and return what it returned."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result


def _session() -> Any:
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.appName("streampulse-job")
        # Ten thousand records at the topic's size limit would be 2.6 GB on their way to Python.
        .config("spark.sql.execution.arrow.maxBytesPerBatch", 16 * 1024 * 1024)
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("WARN")
    return session


def serve_metrics(host: str, port: int) -> None:
    """Serve the metrics. If the port is taken, log one line: the job counts without its metrics."""
    try:
        serve(host, port)
    except OperatorError as error:
        log.error("no metrics, the job counts without them: %s, then: systemctl restart streampulse-job", error)


def fresh_checkpoint(parent: Path) -> Path:
    """Return a new folder for this run's checkpoint and remove those of earlier runs. Leave everything else there.

    The position is the ledger's. A checkpoint with another position could only be wrong: restored from elsewhere, older
    than the tables, or newer.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.iterdir():
        if _RUN.fullmatch(old.name) and old.is_dir() and not old.is_symlink():
            try:
                shutil.rmtree(old)
            except OSError as error:
                log.warning("the checkpoint of an earlier run stays: %s", one_line(error))
    return parent / str(uuid.uuid4())
