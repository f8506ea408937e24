"""The job counts and commits the events, and a killed driver resumes at its position. The tests build on each other."""

import datetime
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from asking import get, kill, postgres, run, said, settings, show, stopped, until
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

ENV = settings("kafka", "postgres-writer", "job")
STREAM = f"__verify-{uuid.uuid4()}"
TOPIC = ENV["STREAMPULSE_KAFKA_TOPIC"]
BROKERS = ENV["STREAMPULSE_KAFKA_BOOTSTRAP_SERVERS"].split(",")
METRICS = f"http://{ENV['STREAMPULSE_JOB_METRICS_HOST']}:{ENV['STREAMPULSE_JOB_METRICS_PORT']}/metrics"


def sql(statement: str, *values: str) -> int:
    """Run a statement as the job's own role and return the first number of the result."""
    login = {name: ENV[f"STREAMPULSE_POSTGRES_{name.upper()}"] for name in ("host", "port", "user", "password")}
    with closing(psycopg2.connect(dbname=ENV["STREAMPULSE_POSTGRES_DATABASE"], **login)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            return int((cursor.fetchone() or (0,))[0]) if cursor.description else 0


def message() -> dict[str, bytes]:
    """Return one chat message of the tests' stream."""
    event = {
        "event_id": str(uuid.uuid4()), "ts": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "event_type": "chat_message", "stream_id": STREAM, "user_id": "verify", "message_len": 3,
    }  # fmt: skip
    return {"key": STREAM.encode(), "value": json.dumps(event).encode()}


def chat() -> None:
    """Send one chat message of the tests' stream."""
    with closing(KafkaProducer(bootstrap_servers=BROKERS)) as producer:
        producer.send(TOPIC, **message()).get(20)


def counted(messages: int, seconds: float) -> None:
    """Wait until the tables hold exactly that many chat messages of the tests' stream; more is a failure."""

    def found() -> bool:
        statement = "SELECT coalesce(sum(chat_messages), 0) FROM stream_metrics_minute WHERE stream_id = %s"
        number = sql(statement, STREAM)
        assert number <= messages, f"{number} messages were counted and {messages} sent"
        return number == messages

    until(f"{messages} messages are counted", seconds, found, psycopg2.OperationalError)


def ledger() -> int:
    """Return the number of ledger rows."""
    return sql("SELECT count(*) FROM batch_ledger")


@pytest.fixture(scope="module", autouse=True)
def _removed() -> Iterator[None]:
    yield
    sql("DELETE FROM stream_metrics_minute WHERE stream_id = %s", STREAM)
    sql("DELETE FROM stream_presence WHERE stream_id = %s", STREAM)


def test_a_message_is_counted() -> None:
    chat()
    counted(1, 90)
    assert ledger() > 0
    assert any(' msg="batches committed" batch_id=' in line for line in said("streampulse-job", "info"))


def test_a_log_that_ends_with_an_aborted_transaction_is_read_to_its_end() -> None:
    with closing(KafkaProducer(bootstrap_servers=BROKERS, transactional_id=STREAM)) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(TOPIC, **message()).get(20)
        producer.abort_transaction()
    with closing(KafkaConsumer(bootstrap_servers=BROKERS, isolation_level="read_committed")) as consumer:
        ends = consumer.end_offsets([TopicPartition(TOPIC, number) for number in consumer.partitions_for_topic(TOPIC)])
    newest = "SELECT coalesce((offsets ->> %s)::bigint, 0) FROM batch_ledger ORDER BY seq DESC LIMIT 1"
    until(
        "the log is read to its end", 60,
        lambda: all(sql(newest, str(partition.partition)) >= end for partition, end in ends.items()),
    )  # fmt: skip
    counted(1, 5)


def test_a_killed_driver_resumes_at_its_position() -> None:
    before = ledger()
    # Returns when the archive is made, or at once if a valid one exists.
    run("systemctl", "start", "spark-classes", seconds=400)
    started = kill("streampulse-job", 180)
    chat()
    # A bound for a busy machine; the benchmark measures the duration.
    counted(2, 180)
    assert ledger() > before
    assert "/spark.jsa" in Path(f"/proc/{started}/maps").read_text(), "the driver started without its archive"


def test_its_metrics_are_those_of_a_driver_that_keeps_up() -> None:
    started = show("streampulse-job", "MainPID")
    # The query's progress is polled every five seconds; the same driver is still running afterwards.
    time.sleep(8)
    assert show("streampulse-job", "MainPID") == started

    def scraped() -> dict[str, float]:
        lines = get(METRICS)[1].splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    until("nothing waits", 60, lambda: scraped()["streampulse_job_lag_records"] == 0)
    found = scraped()
    assert found["streampulse_job_records_total"] >= 1
    assert found["streampulse_job_executors"] == 1
    assert found["streampulse_job_trigger_seconds"] > 0
    assert all(found[f"streampulse_job_{rate}_records_per_second"] >= 0 for rate in ("input", "processed"))


def test_it_reports_that_postgresql_is_away_and_catches_up() -> None:
    def warned() -> list[str]:
        return [line for line in said("streampulse-job", "warning") if " level=warning " in line]

    with stopped(postgres()):
        chat()
        away = 'msg="PostgreSQL went away'
        until("the job says so", 60, lambda: any(away in line and " batch_id=" in line for line in warned()))
    assert all(line.startswith("ts=") for line in warned()), warned()
    counted(3, 180)
