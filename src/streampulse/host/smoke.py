"""``streampulse smoke``: send a few events through the whole pipeline and check their exact result.

The events belong to a stream of their own, ``__smoke-<uuid>``, which moves no clock and appears in no list. Their
result is known beforehand. Each hop is awaited in turn, so that a failure names the hop that the events did not pass.
"""

import argparse
import datetime
import json
import os
import sys
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Final, NamedTuple

import psycopg2
import psycopg2.extensions

from streampulse.core import http, kafka, postgres
from streampulse.core.errors import OperatorError, one_line
from streampulse.core.settings import KafkaSettings, PostgresSettings, load
from streampulse.events import partition_of
from streampulse.host import SMOKE_SECONDS

PREFIX: Final = "__smoke-"
_PAUSE_SECONDS: Final = 0.1
#: Age from which leftovers of killed smoke tests are removed.
_LEFTOVER: Final = "1 hour"

#: The expected columns of the events' one row.
EXPECTED: Final[dict[str, int | Decimal]] = {
    "chat_messages": 1,
    "donations": 1,
    "donations_usd": Decimal("12.30"),
    "joins": 1,
    "leaves": 1,
    "unique_viewers": 2,
    "active_viewers": 0,
}

#: The first batch of each shard's newest driver, if it counted more records than the offsets that it added.
_REPEATED: Final = """
    SELECT seq, records, added FROM (
        SELECT this.seq, this.accepted + this.duplicates
            + (SELECT coalesce(sum(number::bigint), 0) FROM jsonb_each_text(this.dead_letters) AS l(reason, number))
            AS records,
            (SELECT sum(at::bigint - coalesce((before.offsets->>number)::bigint, 0))
             FROM jsonb_each_text(this.offsets) AS o(number, at)) AS added
        FROM newest_batches AS newest,
        LATERAL (SELECT * FROM batch_ledger WHERE query_id = newest.query_id AND shard = newest.shard
                 ORDER BY seq LIMIT 1) AS this,
        LATERAL (SELECT * FROM batch_ledger WHERE seq < this.seq AND topic_id = this.topic_id AND shard = this.shard
                 ORDER BY seq DESC LIMIT 1) AS before
        WHERE NOT EXISTS (SELECT FROM lost_spans WHERE topic_id = this.topic_id AND noted_at >= before.committed_at)
    ) AS first WHERE records > added
"""

Row = dict[str, Any]


class Plan(NamedTuple):
    """The events of one smoke test: their stream, the values to send, and the start of their window."""

    stream_id: str
    values: list[bytes]
    window_start: datetime.datetime
    newest: datetime.datetime


class NotPassed(Exception):  # noqa: N818 - a finding
    """The events did not pass a hop. ``cause`` is half a sentence, ``fix`` the next command."""

    def __init__(self, hop: str, cause: str, fix: str) -> None:
        super().__init__(f"{hop}: {cause}. Look: {fix}")
        self.hop = hop
        self.cause = cause
        self.fix = fix


class _NotYet(Exception):  # noqa: N818 - a state
    """Not done so far; the text is the observation."""


def plan(now: datetime.datetime) -> Plan:
    """Return the events of a smoke test that begins at an instant.

    All are in the last whole minute before it. They are never late: a clock is at most five minutes ahead of the
    brokers', and lateness begins ten minutes behind it. They are never from the future. The last viewer leaves, so that
    no later minute gets a row.
    """
    stream_id = f"{PREFIX}{uuid.uuid4()}"
    start = now.astimezone(datetime.UTC).replace(second=0, microsecond=0) - datetime.timedelta(minutes=1)

    def value(second: int, event_type: str, user: str, **fields: object) -> bytes:
        event = {
            "event_id": str(uuid.uuid4()),
            "ts": (start + datetime.timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "event_type": event_type,
            "stream_id": stream_id,
            "user_id": user,
            **fields,
        }
        return json.dumps(event).encode()

    chat = value(20, "chat_message", "smoke-viewer-1", message_len=5)
    values = [
        value(10, "viewer_join", "smoke-viewer-1"),
        chat,
        chat,  # a duplicate: counted once
        value(30, "donation", "smoke-viewer-2", amount_usd="12.30"),
        value(0, "stream_start", "smoke-owner"),  # out of order
        value(40, "viewer_leave", "smoke-viewer-1"),
    ]
    return Plan(stream_id, values, start, start + datetime.timedelta(seconds=40))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse smoke``."""
    parser.add_argument("--json", action="store_true", help="print the outcome and the time of each hop as JSON")
    parser.add_argument(
        "--timeout",
        type=float,
        default=SMOKE_SECONDS,
        metavar="SECONDS",
        help="the whole must be done within this (default: %(default)g)",
    )
    parser.add_argument("--shard", type=int, metavar="N", help="send to this shard of the job, where it has several")
    parser.add_argument("--no-api", action="store_true", help="only up to PostgreSQL: the API is not asked")
    parser.add_argument(
        "--api-url", metavar="URL", help="address of the API (default: $STREAMPULSE_API_URL, else this host's own)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the smoke test; return 0 on success.

    :raises OperatorError: the events did not pass a hop, or a setting is missing.
    """
    kafka.silence()
    api_url = "" if arguments.no_api else arguments.api_url or _api_url(os.environ)
    smoke = Smoke(load(KafkaSettings), load(PostgresSettings), api_url, arguments.timeout, arguments.shard)
    started = time.monotonic()
    failure = None
    try:
        smoke.run()
    except NotPassed as not_passed:
        failure = not_passed
    outcome: dict[str, object] = {
        "ok": failure is None,
        "stream_id": smoke.plan.stream_id,
        "events": len(smoke.plan.values),
        "rows": 1 if failure is None else None,
        "hops": {hop: round(seconds, 3) for hop, seconds in smoke.hops.items()},
        "seconds": round(time.monotonic() - started, 3),
    }
    if failure is not None:
        outcome |= {"hop": failure.hop, "cause": failure.cause, "fix": failure.fix}
    if arguments.json:
        sys.stdout.write(json.dumps(outcome, indent=2) + "\n")
    if failure is not None:
        raise OperatorError(str(failure))
    if not arguments.json:
        took = (
            f", counted after {smoke.hops['spark']:.1f} s, lag {smoke.lag} records"
            if arguments.no_api
            else ", API agrees"
        )
        sys.stdout.write(f"{len(smoke.plan.values)} events sent, 1 row exact{took}\n")
    return 0


def _api_url(environment: os._Environ[str] | dict[str, str]) -> str:
    if environment.get("STREAMPULSE_API_URL"):
        return environment["STREAMPULSE_API_URL"]
    port = environment.get("STREAMPULSE_API_PORT")
    if port is None:
        raise OperatorError(
            "the API's address is not known on this host: give --api-url http://HOST:8000, or set STREAMPULSE_API_URL"
        )
    host = environment.get("STREAMPULSE_API_HOST", "127.0.0.1")
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 - nothing is bound here


def _api_headers(environment: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """Return the API's key header, if a key is set."""
    keys = [key.strip() for key in environment.get("STREAMPULSE_API_KEYS", "").split(",") if key.strip()]
    return {"Authorization": f"Bearer {keys[0]}"} if keys else {}


class Smoke:
    """One run of the smoke test. ``hops`` holds the seconds of each hop. Without ``api_url`` no API is asked."""

    def __init__(
        self,
        kafka_settings: KafkaSettings,
        postgres_settings: PostgresSettings,
        api_url: str,
        timeout: float,
        shard: int | None = None,
    ) -> None:
        self.shard = shard
        self.kafka = kafka_settings
        self.postgres = postgres_settings
        self.api_url = api_url.rstrip("/")
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self.plan = plan(datetime.datetime.now(datetime.UTC))
        self.hops: dict[str, float] = {}
        #: Records that the job had not counted yet when it had counted the smoke test's.
        self.lag = 0

    def run(self) -> None:
        """Send the events, follow them through each hop, then remove their rows.

        :raises NotPassed: the events did not pass a hop in time, or have a wrong result.
        """
        connection = self._connect()
        try:
            before = self._newest_batch(connection)
            lag = None if self.api_url else self._lag(connection)
            self._choose(connection)
            with self._hop("kafka"):
                partition, offset = self._send()
            try:
                with self._hop("spark"):
                    self._until("spark", lambda: self._counted(connection, before, partition, offset), "inv logs job")
                with self._hop("postgres"):
                    self._check_rows(connection)
                if lag is None:
                    with self._hop("api"):
                        self._until("api", self._check_api, "inv logs api")
                else:
                    # Only now the newest batches are the driver's that runs.
                    check_position(connection)
                    self._until("lag", lambda: self._check_lag(connection, lag), "inv status")
            finally:
                self._remove(connection)
            with self._hop("removed"):
                self._until("removed", lambda: self._check_removed(connection), "inv logs api")
        except psycopg2.OperationalError as error:
            raise NotPassed("PostgreSQL", one_line(error), "inv logs postgres") from None
        finally:
            connection.close()

    @contextmanager
    def _hop(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.hops[name] = time.monotonic() - started

    def _until(self, hop: str, probe: Callable[[], None], fix: str) -> None:
        while True:
            try:
                probe()
            except _NotYet as seen:
                if time.monotonic() >= self.deadline:
                    names = {"spark": "Spark", "api": "API", "lag": "lag", "removed": "removing its rows"}
                    raise NotPassed(names[hop], f"{seen} after {self.timeout:g} s", fix) from None
                time.sleep(_PAUSE_SECONDS)
            else:
                return

    def _left(self) -> float:
        return max(self.deadline - time.monotonic(), 1.0)

    # Kafka ------------------------------------------------------------------------------------------------------------

    def _send(self) -> tuple[int, int]:
        """Send the events and return the partition and the last offset that Kafka acknowledged."""
        from kafka import KafkaProducer
        from kafka.errors import KafkaError

        key = self.plan.stream_id.encode()
        try:
            producer = kafka.connected(
                KafkaProducer,
                min(self._left(), 5.0),
                **self.kafka.client_arguments("streampulse-smoke"),
                acks="all",
                # One after the other, also after a retry, to keep the order.
                enable_idempotence=True,
                max_block_ms=int(self._left() * 1000),
                delivery_timeout_ms=int(self._left() * 1000),
                request_timeout_ms=int(self._left() * 500),
            )
            try:
                partitions = producer.partitions_for(self.kafka.topic)
                if not partitions:
                    raise NotPassed("Kafka", f"there is no topic {self.kafka.topic}", "inv up")
                partition = partition_of(key, len(partitions))
                sent = [
                    producer.send(self.kafka.topic, key=key, value=value, partition=partition)
                    for value in self.plan.values
                ]
                offsets = [each.get(timeout=self._left()).offset for each in sent]
            finally:
                producer.close(timeout=2)
        except (KafkaError, OSError) as error:
            raise NotPassed(
                "Kafka", f"{self.kafka.bootstrap_servers} did not take the events ({one_line(error)})", "inv logs kafka"
            ) from None
        return partition, max(offsets)

    # Spark ------------------------------------------------------------------------------------------------------------

    def _newest_batch(self, connection: psycopg2.extensions.connection) -> int:
        ((seq,),) = postgres.execute(connection, "SELECT coalesce(max(seq), 0) FROM batch_ledger")
        return int(seq)

    def _shards(self, connection: psycopg2.extensions.connection) -> int:
        found = postgres.execute(connection, "SELECT shards FROM counted_up_to")
        return int(found[0][0]) if found else 1

    def _choose(self, connection: psycopg2.extensions.connection) -> None:
        """Choose a stream that the shard counts.

        :raises NotPassed: there is no such shard.
        """
        shards = self._shards(connection)
        if self.shard is not None and not 0 <= self.shard < shards:
            raise NotPassed("Spark", f"{shards} drivers count, and shard {self.shard} is none of them", "inv up")
        partitions = len(self._log().starts) if self.shard is not None and shards > 1 else 1
        while partitions > 1 and partition_of(self.plan.stream_id.encode(), partitions) % shards != self.shard:
            self.plan = plan(datetime.datetime.now(datetime.UTC))

    def _counted(self, connection: psycopg2.extensions.connection, before: int, partition: int, offset: int) -> None:
        """Wait for a batch, committed after the sending, that has read past the events; return its time."""
        newest = postgres.execute(
            connection,
            "SELECT seq, (offsets->>%s)::bigint, extract(epoch FROM now() - committed_at)::float8 "
            "FROM newest_batches WHERE shard = %s",
            (str(partition), partition % self._shards(connection)),
        )
        if not newest:
            raise _NotYet("Kafka has the events, but the job has not committed any batch")
        ((seq, read, age),) = newest
        # An older batch with a higher offset was read from an earlier topic of that name.
        if seq <= before:
            raise _NotYet(
                f"Kafka has the events, but the job has committed no batch since: its newest is {age:.0f} s old"
            )
        if read is None or read <= offset:
            raise _NotYet(
                f"Kafka has the events (partition {partition}, up to offset {offset}), but the job's newest batch has "
                f"read that partition only up to {read or 0}"
            )

    def _check_lag(self, connection: psycopg2.extensions.connection, before: int) -> None:
        self.lag = self._lag(connection)
        if self.lag > before:
            raise _NotYet(f"the job counts, but its lag has grown from {before} to {self.lag} records")

    def _lag(self, connection: psycopg2.extensions.connection) -> int:
        """Return how many offsets of the topic the job has not counted yet."""
        found = postgres.execute(connection, "SELECT offsets FROM counted_up_to")
        return self._log().behind(found[0][0] if found else {})

    def _log(self) -> kafka.Log:
        from kafka.errors import KafkaError

        try:
            with kafka.Topic(self.kafka, "streampulse-smoke", seconds=self._left()) as topic:
                return topic.log()
        except (KafkaError, OSError) as error:
            raise NotPassed("Kafka", one_line(error), "inv logs kafka") from None

    # PostgreSQL -------------------------------------------------------------------------------------------------------

    def _connect(self) -> psycopg2.extensions.connection:
        try:
            connection = postgres.connect(self.postgres, "streampulse-smoke", statement_seconds=self.timeout)
            # A smoke test that was killed leaves its rows behind.
            for table, moment in (("stream_metrics_minute", "window_start"), ("stream_presence", "last_event")):
                postgres.execute(
                    connection,
                    f"DELETE FROM {table} WHERE stream_id LIKE %s AND {moment} < now() - %s::interval",  # noqa: S608 - constants
                    (_like(PREFIX), _LEFTOVER),
                )
        except psycopg2.OperationalError as error:
            raise NotPassed(
                "PostgreSQL",
                f"{self.postgres.host}:{self.postgres.port} does not answer ({one_line(error)})",
                "inv logs postgres",
            ) from None
        except psycopg2.errors.UndefinedTable as error:
            raise NotPassed("PostgreSQL", f"a table is missing ({one_line(error)})", "inv up") from None
        except psycopg2.errors.InsufficientPrivilege as error:
            raise NotPassed(
                "PostgreSQL",
                f"{self.postgres.user} may not do it ({one_line(error)})",
                "run it as root on the job's host",
            ) from None
        return connection

    def _rows(self, connection: psycopg2.extensions.connection) -> list[Row]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT window_start, chat_messages, donations, donations_usd, joins, leaves, unique_viewers, "
                "active_viewers FROM stream_metrics_minute WHERE stream_id = %s ORDER BY window_start",
                (self.plan.stream_id,),
            )
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def _check_rows(self, connection: psycopg2.extensions.connection) -> None:
        wrong = differences(self._rows(connection), self.plan.window_start)
        states = postgres.execute(
            connection,
            "SELECT active_viewers, updated_at FROM stream_state WHERE stream_id = %s",
            (self.plan.stream_id,),
        )
        if len(states) != 1:
            wrong.append(f"{len(states)} rows in stream_state instead of 1")
        elif states[0][0] != 0:
            wrong.append(f"active_viewers is {states[0][0]} in stream_state instead of 0")
        elif states[0][1] is None or states[0][1] < self.plan.newest:
            wrong.append(f"updated_at is {states[0][1]} in stream_state, before the stream's own newest event")
        if wrong:
            raise NotPassed("PostgreSQL", f"the job counted the events wrongly: {'; '.join(wrong)}", "inv verify")

    # API --------------------------------------------------------------------------------------------------------------

    def _get(self, path: str) -> list[Row]:
        query = urllib.parse.urlencode({"stream_id": self.plan.stream_id})
        url = f"{self.api_url}{path}{'&' if '?' in path else '?'}{query}"
        try:
            answer = http.get(url, seconds=min(self._left(), 5.0), headers=_api_headers(os.environ))
            if not answer.is_success:
                raise _NotYet(f"{self.api_url}{path} answers {answer.status_code}")
            rows = answer.json()["rows"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _NotYet(f"{self.api_url}{path} does not answer as it should ({one_line(error)})") from None
        if not isinstance(rows, list):
            raise _NotYet(f"{self.api_url}{path} answers without a list of rows")
        return rows

    def _check_api(self) -> None:
        # Fifteen windows back from the table's newest, which may be five minutes ahead of now.
        wrong = differences(self._get("/metrics/history?minutes=15"), self.plan.window_start)
        if wrong:
            raise _NotYet(f"PostgreSQL has the numbers, but /metrics/history differs: {'; '.join(wrong)}")
        states = self._get("/state")
        if [state.get("active_viewers") for state in states] != [0]:
            raise _NotYet(f"PostgreSQL has the numbers, but /state answers {states}")

    # Cleaning up ------------------------------------------------------------------------------------------------------

    def _remove(self, connection: psycopg2.extensions.connection) -> None:
        for table in ("stream_metrics_minute", "stream_presence"):
            postgres.execute(connection, f"DELETE FROM {table} WHERE stream_id = %s", (self.plan.stream_id,))  # noqa: S608 - constants

    def _check_removed(self, connection: psycopg2.extensions.connection) -> None:
        ((count,),) = postgres.execute(
            connection,
            "SELECT (SELECT count(*) FROM stream_metrics_minute WHERE stream_id = %(stream)s) + "
            "(SELECT count(*) FROM stream_presence WHERE stream_id = %(stream)s)",
            {"stream": self.plan.stream_id},
        )
        if count:
            self._remove(connection)
            raise _NotYet(f"{count} rows are back in PostgreSQL")
        if self.api_url and (self._get("/metrics/history?minutes=15") or self._get("/state")):
            raise _NotYet("PostgreSQL has no row any more, but the API still answers with it")


def check_position(connection: psycopg2.extensions.connection) -> None:
    """Check that the driver's first batch went on where the driver before had stopped.

    A transaction's markers take offsets and are no records, so a batch may have fewer records than offsets.

    :raises NotPassed: the batch counted records a second time.
    """
    wrong = postgres.execute(connection, _REPEATED)
    if wrong:
        ((seq, records, offsets),) = wrong
        raise NotPassed(
            "Spark",
            f"batch {seq}, the driver's first, counted {records} records in {offsets} new offsets: it did not go on "
            "where the driver before had stopped",
            "inv verify",
        )


def differences(rows: list[Row], window_start: datetime.datetime) -> list[str]:
    """Return the differences between the stream's minute rows and the expected one."""
    if len(rows) != 1:
        return [f"{len(rows)} rows instead of 1"]
    row = rows[0]
    wrong = []
    began = row.get("window_start")
    if isinstance(began, str):
        began = datetime.datetime.fromisoformat(began)
    if began != window_start:
        wrong.append(f"window_start is {began} instead of {window_start}")
    for column, expected in EXPECTED.items():
        found = row.get(column)
        if found is None or Decimal(str(found)) != expected:
            wrong.append(f"{column} is {found} instead of {expected}")
    return wrong


def _like(prefix: str) -> str:
    return prefix.replace("_", r"\_") + "%"
