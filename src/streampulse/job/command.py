"""``streampulse job``: the driver of the streaming job. Started by spark-submit, supervised by systemd.

The driver ends on every fault that it cannot repair itself. Its supervisor starts it again, and it goes on from the
position that PostgreSQL has.
"""

import argparse
import json
import logging
import math
import re
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg2
import sdnotify
from confluent_kafka import KafkaException
from kafka.errors import KafkaError

from streampulse.core import logs as logfmt
from streampulse.core.errors import OperatorError, SettingsError, one_line
from streampulse.core.kafka import Log, Topic, silence
from streampulse.core.metrics import serve
from streampulse.core.settings import JobSettings, KafkaSettings, PostgresSettings, load
from streampulse.job import collect_seldom, metrics
from streampulse.job.batches import Batches
from streampulse.job.dead_letters import ANSWER_SECONDS, DeadLetters
from streampulse.job.lost import Read, RecordReader, first_difference
from streampulse.job.overlap import InBackground, Overlap
from streampulse.job.reading import Reading
from streampulse.job.shards import Shard
from streampulse.job.source import Start, decide_start
from streampulse.job.store import Store
from streampulse.job.store.exclusions import Exclusions
from streampulse.job.suspects import Clocks, Suspects

log = logging.getLogger(__name__)
Result = TypeVar("Result")

_LOOK_EVERY_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 60.0
# The rows of a shard without records follow the event clock within five seconds.
_FOLLOW_SECONDS: Final = 2.0
# Spark reports on its triggers at least every ten seconds. A query that has not moved for longer hangs.
_MOVED_SECONDS: Final = 20.0
_ASK_QUERY_EVERY_SECONDS: Final = 5.0
# A master that took the executors for lost, and was restarted, may give none back: only a new application gets some.
_WITHOUT_EXECUTORS_SECONDS: Final = 60.0
# Where a run goes on is never read from its checkpoint. Spark writes there once a minute and not for each batch: Hadoop
# starts a process for each of a dozen steps of a rename, which took half of the driver's time at 3,000 events/s.
_SELDOM: Final = {
    "asyncProgressTrackingEnabled": "true",
    "asyncProgressTrackingCheckpointIntervalMs": "60000",
    # Spark allows it for its own sinks only, since a sink may see a batch again: the ledger is ready for that.
    "_asyncProgressTrackingOverrideSinkSupportCheck": "true",
}
# The last line of a Python traceback.
_KAFKA: Final = re.compile(r"^[\w.]*\b(?:LogLost|KafkaException): (.+)", re.MULTILINE)
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
    silence()
    logging.getLogger("py4j").setLevel(logging.WARNING)
    kafka, postgres, settings = load(KafkaSettings), load(PostgresSettings), load(JobSettings)
    shard = Shard(settings.shard, settings.shards)
    timeout_us = settings.viewer_timeout_seconds * 1_000_000
    store = Store(postgres, timeout_us, settings.history_days, settings.ledger_days, shard=shard)
    letters = DeadLetters(kafka, shard)
    batches = Batches(store, letters)
    # Spark's own start takes longer than everything else here, so the two run side by side.
    session = InBackground(lambda: _session(shard.name))
    try:
        start = begin(kafka, store, letters, batches)
    except psycopg2.Error as error:
        raise OperatorError(f"PostgreSQL at {postgres.host}:{postgres.port}: {one_line(error)} (inv doctor)") from None
    except (KafkaError, KafkaException) as error:
        raise OperatorError(f"Kafka at {kafka.bootstrap_servers}: {one_line(error)} (inv doctor)") from None
    serve_metrics(settings.metrics_host, settings.metrics_port + shard.number, shard.name)
    collect_seldom()
    excluded = batches.exclusions_ahead(letters.written)
    suspects = Suspects(Clocks(kafka, postgres), start.partitions, excluded.covers)
    return Driver(batches, settings, kafka, suspects, excluded).run(session.result(), start)


def begin(kafka: KafkaSettings, store: Store, letters: DeadLetters, batches: Batches) -> Start:
    """Become the writer, load the state, and find where reading goes on.

    :raises OperatorError: another driver is the writer, or there is no topic, or it has fewer partitions than shards.
    :raises psycopg2.Error: PostgreSQL does not answer.
    :raises KafkaError: Kafka does not answer.
    :raises KafkaException: the same.
    """

    def look() -> Log:
        with Topic(kafka, "streampulse-job", ANSWER_SECONDS) as reader:
            found = _patiently("Kafka", lambda: reader.log(settled=True))
        store.shard.check(kafka.topic, len(found.starts))
        return found

    def fence(count: int) -> int:
        partitions = len(look().starts)
        _patiently("Kafka", lambda: letters.fence(count))
        return partitions

    ledger = _patiently("PostgreSQL", lambda: batches.open(fence))
    topic = look()

    def read(number: int) -> Read:
        return Read(
            ledger.offsets.get(number, 0),
            ledger.last.get(number),
            ledger.clocks.get(number),
            lambda: store.earlier_positions(topic.topic_id, number),
            lambda first: store.accepted_ids(number, first),
            ledger.committed_at_ms,
        )

    client = kafka.librdkafka_options("streampulse-job")
    with closing(RecordReader(client, kafka.topic, topic.ends)) as record_reader:
        start = decide_start(
            topic,
            ledger,
            lambda number: _patiently("Kafka", lambda: first_difference(record_reader, number, topic, read(number))),
            store.shard,
        )
    _patiently("Kafka", lambda: letters.open(len(topic.starts), topic.topic_id))
    batches.start_topic(topic.topic_id, start)
    if due := store.due_letters():
        letters.send_due(due)
        store.forget_due_letters(due)
    return start


class Driver:
    """Runs the query and tells systemd how it is."""

    def __init__(
        self, batches: Batches, settings: JobSettings, kafka: KafkaSettings, suspects: Suspects, excluded: Exclusions
    ) -> None:
        self._batches = batches
        self._excluded = excluded
        self._settings = settings
        self._kafka = kafka
        self._suspects = suspects
        self._notifier = sdnotify.SystemdNotifier()
        self._overlap = Overlap()
        self._reading: Reading
        # Of the source.
        self._options: dict[str, str] = {}
        self._tracker: Any = None
        self._seen: object = None
        # When Spark's query or a batch of it last moved, on the monotonic clock.
        self._moved_at = 0.0
        self._look_due = 0.0
        # When a look found executors last, on the monotonic clock.
        self._executors_at = math.inf

    def run(self, session: Any, start: Start) -> int:
        """Run the query from ``start`` until it ends, which is always a failure: 1."""
        query = self._start(session, start)
        # Asked for once: each dot is a call into the JVM.
        self._tracker = session.sparkContext._jsc.sc().statusTracker()
        ready = False
        try:
            while query.isActive:
                if self._overlap.failure is not None:
                    log.error("the batch failed: %s", _cause(self._overlap.failure), extra=self._which())
                    return 1
                if self._stalled():
                    log.error(
                        "the batch got no step further within %d s", self._settings.stall_seconds, extra=self._which()
                    )
                    return 1
                # Until it is ready, the unit's limit of a start counts.
                if ready and self._executors_at + _WITHOUT_EXECUTORS_SECONDS < time.monotonic():
                    log.error("no executor for %d s: a new application asks for some", _WITHOUT_EXECUTORS_SECONDS)
                    return 1
                if not ready and (self._batches.commits or self._warm(session, query)):
                    ready = True
                    self._notifier.notify("READY=1")
                    log.info("running", extra={"fields": {"query_id": query.id}})
                self._excluded.look()
                self._suspects.look()
                self._follow(ready)
                moved = ready and self._moves(query)
                # A batch under way has the stall limit, which is longer than the watchdog's.
                if not ready or moved or self._reading.since is not None or self._overlap.busy:
                    self._notifier.notify("WATCHDOG=1")
                time.sleep(_LOOK_EVERY_SECONDS)
            failure = self._overlap.failure or query.exception()
            log.error("the query has ended: %s", failure and _cause(failure))
        finally:
            self._notifier.notify("STOPPING=1")
        return 1

    def _follow(self, ready: bool) -> None:
        """Have the rows extended to the event clock of the other shards, where there are no records.

        Not while executors read or Spark's query stands still: a shard that hangs must look as old as it is, in the
        ledger and to the watchdog.
        """
        due = ready and self._reading.since is None and time.monotonic() < self._moved_at + _MOVED_SECONDS
        if self._settings.shards > 1 and due and time.monotonic() > self._batches.followed_at + _FOLLOW_SECONDS:
            self._overlap.offer(self._batches.follow)

    def _which(self) -> dict[str, dict[str, int | None]]:
        return {"fields": {"batch_id": self._batches.batch_id}}

    def _start(self, session: Any, start: Start) -> Any:
        # Imported here: pyspark is there on hosts only.
        from streampulse.job.spark_source import LogSource, options

        positions = self._batches.positions(start)
        client = self._kafka.librdkafka_options("streampulse-job")
        limit = self._settings.max_offsets_per_trigger
        self._options = options(client, self._kafka.topic, start.offsets, start.partitions, limit)
        session.dataSource.register(LogSource)
        folder = f"shard-{self._settings.shard}" if self._settings.shards > 1 else ""
        checkpoint = fresh_checkpoint(Path(self._settings.checkpoint_dir, folder))
        self._reading = Reading(self._batches, self._overlap, self._suspects, self._excluded, positions)
        return (
            session.readStream.format(LogSource.name())
            .options(**self._options)
            .load()
            .writeStream.foreachBatch(self._reading.process)
            .option("checkpointLocation", checkpoint.as_uri())
            .options(**_SELDOM)
            .trigger(processingTime=f"{self._settings.trigger_interval_ms} milliseconds")
            .start()
        )

    def _stalled(self) -> bool:
        """Tell whether reading or counting has not got a step further for too long."""
        oldest = time.monotonic() - self._settings.stall_seconds
        reads = self._reading.since is not None and self._reading.since < oldest
        return reads or (self._overlap.busy and self._batches.alive_at < oldest)

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
        executors = max(0, len(self._tracker.getExecutorInfos()) - 1)
        metrics.EXECUTORS.set(executors)
        if executors:
            self._executors_at = now
        seen = (progress and progress["timestamp"], self._batches.commits)
        moved = seen != self._seen
        if moved:
            self._moved_at = now
        self._seen = seen
        return moved

    def _warm(self, session: Any, query: Any) -> bool:
        """Tell whether the query has looked for records and found none; then have the executors' workers started."""
        status = query.status
        waiting = not status["isTriggerActive"] and status["message"].startswith("Waiting for")
        if not waiting or self._overlap.busy:
            return False
        # Python workers start and import everything now, so that ready means quick.
        session.read.format("streampulse").options(**self._options).load().collect()
        return True


def _cause(error: BaseException) -> str:
    """Return what Kafka said, where Spark's text on a failed task or plan has it, or else the text's beginning."""
    found = _KAFKA.search(str(error))
    return found[1] if found else one_line(error)[:500]


def records_behind(latest: str | None, read_up_to: dict[int, int]) -> int:
    """Return how many records the log has beyond those that are committed, over all partitions.

    :param latest: the ends of the topic's partitions, as Spark reports them: ``{"<partition>": offset}``; nothing, or
        ``null``, while the source has not asked for them yet.
    :param read_up_to: by partition the offset after the last record that was committed.
    """
    ends = (json.loads(latest) if latest else None) or {}
    return sum(max(0, end - read_up_to.get(int(number), 0)) for number, end in ends.items())


def _patiently(name: str, action: Callable[[], Result]) -> Result:
    """Do something that needs a service which may be starting itself, and try again for a while.

    Spark starts at the same time: waiting here, and not before the driver starts, makes a start short.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return action()
        except (psycopg2.OperationalError, KafkaError, KafkaException) as error:
            if time.monotonic() > deadline:
                raise
            log.warning("%s does not answer yet: %s", name, one_line(error))
            time.sleep(_LOOK_EVERY_SECONDS)


def _session(name: str) -> Any:
    from pyspark.sql import SparkSession

    session = SparkSession.builder.appName(name).getOrCreate()
    session.sparkContext.setLogLevel("WARN")
    return session


def serve_metrics(host: str, port: int, unit: str = "streampulse-job") -> None:
    """Serve the metrics. If the port is taken, log one line: the job counts without its metrics."""
    try:
        serve(host, port)
    except OperatorError as error:
        log.error("no metrics, the job counts without them: %s, then: systemctl restart %s", error, unit)


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
