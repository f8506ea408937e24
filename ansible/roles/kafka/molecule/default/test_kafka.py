"""Records come back as sent, the topics are as designed, and the broker's metrics are guarded."""

import math
import os
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from asking import can_read, get, kill, listening, run, settings
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError

ENV = settings("kafka")
SERVERS = ENV["STREAMPULSE_KAFKA_BOOTSTRAP_SERVERS"].split(",")
HOST = SERVERS[0].rpartition(":")[0]
TOPIC, DLQ = ENV["STREAMPULSE_KAFKA_TOPIC"], ENV["STREAMPULSE_KAFKA_DLQ_TOPIC"]
AGENT = f"http://{HOST}:9404/metrics"
PARTITIONS = {TOPIC: 4, DLQ: 1}
SETTINGS = {
    TOPIC: {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "262144", "retention.ms": "604800000"},
    DLQ: {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "524288", "retention.ms": "2592000000"},
}
ZERO = [
    "kafka_controller_kafkacontroller_offlinepartitionscount",
    "kafka_server_replicamanager_underreplicatedpartitions",
    "kafka_server_replicamanager_underminisrpartitioncount",
    "kafka_server_replicamanager_isrshrinks_total",
    "kafka_server_brokertopicmetrics_failedfetchrequests_total",
    "jmx_scrape_error",
]


@pytest.fixture(scope="module")
def admin() -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=SERVERS)
    yield client
    client.close()


@pytest.fixture(scope="module")
def sent() -> Any:
    """Send a record in a transaction to the dead-letter topic, which no service counts."""
    producer = KafkaProducer(
        bootstrap_servers=SERVERS, acks="all", enable_idempotence=True, transactional_id=f"verify-{uuid.uuid4()}"
    )
    producer.init_transactions()
    producer.begin_transaction()
    found = producer.send(DLQ, value=b"verify", key=b"verify", headers=[("reason", b"verify")], timestamp_ms=1000)
    position = found.get(timeout=20)
    producer.commit_transaction()
    producer.close()
    return position


@pytest.fixture(scope="module")
def refusal() -> str:
    """Return the broker's response to a record that is too large."""
    try:
        producer = KafkaProducer(bootstrap_servers=SERVERS, max_request_size=2_000_000)
        producer.send(TOPIC, value=bytes(300_000)).get(timeout=20)
    except KafkaError as error:
        return type(error).__name__
    return "none"


def read(position: Any) -> Any:
    """Return the record at a position, as a read_committed consumer gets it."""
    consumer = KafkaConsumer(bootstrap_servers=SERVERS, isolation_level="read_committed", enable_auto_commit=False)
    try:
        consumer.assign([TopicPartition(DLQ, position.partition)])
        consumer.seek(TopicPartition(DLQ, position.partition), position.offset)
        received = [record for records in consumer.poll(timeout_ms=20000).values() for record in records]
    finally:
        consumer.close()
    assert received, "the record did not come back"
    return received[0]


def metrics() -> dict[str, dict[str, float]]:
    """Return the metrics of the agent in the broker's JVM: by name, then by the labels as written."""
    status, text = get(AGENT, "streampulse", os.environ["STREAMPULSE_MONITORING_PASSWORD"])
    assert status == 200
    found: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
            found.setdefault(name, {})[labels or ""] = float(value)
    return found


@pytest.fixture(scope="module")
def shown(sent: Any, refusal: str) -> dict[str, dict[str, float]]:  # noqa: ARG001 - both are counted
    return metrics()


@pytest.mark.parametrize("topic", PARTITIONS)
def test_a_topic_is_as_designed(admin: KafkaAdminClient, topic: str) -> None:
    assert {each["name"]: len(each["partitions"]) for each in admin.describe_topics()}[topic] == PARTITIONS[topic]
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, list(SETTINGS[topic]))
    found = admin.describe_configs([resource], config_filter="all")["topic"][topic]
    assert {name: found[name]["value"] for name in SETTINGS[topic]} == SETTINGS[topic]


def test_a_record_comes_back_with_the_time_of_its_arrival(sent: Any) -> None:
    received = read(sent)
    assert received.value == b"verify"
    assert received.timestamp_type == 1
    assert abs(time.time() * 1000 - received.timestamp) < 60000


def test_a_record_that_is_too_large_is_refused(refusal: str) -> None:
    assert "MessageSizeTooLarge" in refusal


def test_use_makes_no_topic(admin: KafkaAdminClient) -> None:
    unknown = f"verify-{uuid.uuid4()}"
    with pytest.raises(KafkaError):
        KafkaProducer(bootstrap_servers=SERVERS, max_block_ms=3000).send(unknown, value=b"x").get(timeout=5)
    assert unknown not in admin.list_topics()


def test_a_second_look_at_the_topics_would_change_nothing() -> None:
    assert run("/usr/local/lib/streampulse/kafka-topics", "--check") == ""


def test_the_agent_is_guarded() -> None:
    assert get(AGENT)[0] == 401
    assert not can_read("nobody", "/etc/kafka/jmx.yml")
    assert listening(9404) <= {HOST, f"[::ffff:{HOST}]"}


@pytest.mark.parametrize("name", ZERO)
def test_a_figure_of_a_healthy_broker_is_zero(shown: dict[str, dict[str, float]], name: str) -> None:
    assert shown[name] == {"": 0}


def test_the_broker_runs_and_is_not_busy(shown: dict[str, dict[str, float]]) -> None:
    assert shown["kafka_server_kafkaserver_brokerstate"] == {"": 3}
    assert shown["kafka_controller_kafkacontroller_activecontrollercount"] == {"": 1}
    for name in ("networkprocessoravgidlepercent", "requesthandleravgidlepercent"):
        assert 0 <= next(series[""] for key, series in shown.items() if key.endswith(name)) <= 1
    assert shown["jvm_memory_used_bytes"]['area="heap"'] < shown["jvm_memory_max_bytes"]['area="heap"']


@pytest.mark.parametrize("request_", ["Produce", "FetchConsumer"])
def test_the_time_of_requests_is_shown(shown: dict[str, dict[str, float]], request_: str) -> None:
    times = shown["kafka_network_requestmetrics_totaltimems"]
    half, most = (times[f'quantile="{quantile}",request="{request_}"'] for quantile in ("0.5", "0.99"))
    assert 0 <= half <= most < math.inf


def test_sent_and_refused_records_are_counted(shown: dict[str, dict[str, float]], sent: Any) -> None:
    ends, dead = shown["kafka_log_log_logendoffset"], f'partition="0",topic="{DLQ}"'
    # A transaction of one record takes two offsets: the record and the marker.
    assert ends[dead] >= sent.offset + 2
    events = {f'partition="{partition}",topic="{TOPIC}"' for partition in range(4)}
    assert set(shown["kafka_log_log_size"]) == set(ends) >= {dead, *events}
    assert shown["kafka_server_brokertopicmetrics_messagesin_total"][f'topic="{DLQ}"'] >= 2
    refused = shown["kafka_network_requestmetrics_errors_total"]
    assert refused['error="MESSAGE_TOO_LARGE",request="Produce"'] >= 1
    assert not any('error="NONE"' in labels for labels in refused)


def test_a_scrape_is_quick() -> None:
    begun = time.monotonic()
    for _ in range(5):
        metrics()
    assert (time.monotonic() - begun) / 5 < 1.5  # a bound on a busy machine


def test_its_journal_has_priorities() -> None:
    journal = run("journalctl", "-u", "kafka", "-o", "cat")
    assert "INFO" in journal
    assert "<6>" not in journal
    weighty = run("journalctl", "-u", "kafka", "-o", "cat", "-p", "warning", "_COMM=java").splitlines()
    assert weighty
    assert not [line for line in weighty if line.startswith("INFO ")]


def test_a_record_outlives_a_kill(sent: Any) -> None:
    kill("kafka")
    run("/usr/local/bin/streampulse", "wait", "kafka", "--timeout", "90")
    assert read(sent).value == b"verify"
    assert metrics()["kafka_server_kafkaserver_brokerstate"] == {"": 3}
