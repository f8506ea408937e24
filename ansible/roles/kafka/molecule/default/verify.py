"""Asserts over Kafka's own protocol that records come back as they were sent, and that the topics are as designed."""

import base64
import math
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError

LINES = Path("/etc/streampulse/kafka.env").read_text(encoding="utf-8").splitlines()
ENV = {key: value.strip("'") for key, value in (line.split("=", 1) for line in LINES if "=" in line)}
SERVERS = ENV["STREAMPULSE_KAFKA_BOOTSTRAP_SERVERS"].split(",")
TOPIC, DLQ = ENV["STREAMPULSE_KAFKA_TOPIC"], ENV["STREAMPULSE_KAFKA_DLQ_TOPIC"]
AGENT = f"http://{SERVERS[0].rpartition(':')[0]}:9404/metrics"

admin = KafkaAdminClient(bootstrap_servers=SERVERS)
topics = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}
assert topics[TOPIC] == 4, f"{TOPIC} has {topics[TOPIC]} partitions"
assert topics[DLQ] == 1, f"{DLQ} has {topics[DLQ]} partitions"
wanted = {
    TOPIC: {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "262144", "retention.ms": "604800000"},
    DLQ: {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "524288", "retention.ms": "2592000000"},
}
for topic, settings in wanted.items():
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, list(settings))
    found = admin.describe_configs([resource], config_filter="all")["topic"][topic]
    assert {name: found[name]["value"] for name in settings} == settings, f"{topic} has {found}"

# To the dead letters' topic: nobody counts what is in it, so the test leaves no number behind.
value = uuid.uuid4().bytes
producer = KafkaProducer(
    bootstrap_servers=SERVERS, acks="all", enable_idempotence=True, transactional_id=f"verify-{uuid.uuid4()}"
)
producer.init_transactions()
producer.begin_transaction()
sent = producer.send(DLQ, value=value, key=b"verify", headers=[("reason", b"verify")], timestamp_ms=1000).get(
    timeout=20
)
producer.commit_transaction()
producer.close()


def read(partition: int, offset: int) -> Any:
    """Return the record at an offset of the dead letters, as a consumer of committed records gets it."""
    consumer = KafkaConsumer(bootstrap_servers=SERVERS, isolation_level="read_committed", enable_auto_commit=False)
    try:
        consumer.assign([TopicPartition(DLQ, partition)])
        consumer.seek(TopicPartition(DLQ, partition), offset)
        received = [record for records in consumer.poll(timeout_ms=20000).values() for record in records]
    finally:
        consumer.close()
    assert received, "the record did not come back"
    return received[0]


received = read(sent.partition, sent.offset)
assert received.value == value
assert received.timestamp_type == 1, "records are not stamped on arrival"
assert abs(time.time() * 1000 - received.timestamp) < 60000, "the stamp is not the arrival's"

refusal = ""
try:
    big = KafkaProducer(bootstrap_servers=SERVERS, max_request_size=2_000_000)
    big.send(TOPIC, value=bytes(300_000)).get(timeout=20)
except KafkaError as error:
    refusal = type(error).__name__
assert "MessageSizeTooLarge" in refusal, f"a record of 300,000 bytes met with {refusal or 'no refusal'}"

unknown = f"verify-{uuid.uuid4()}"
try:
    KafkaProducer(bootstrap_servers=SERVERS, max_block_ms=3000).send(unknown, value=b"x").get(timeout=5)
except KafkaError:
    assert unknown not in admin.list_topics(), "a topic was made by mere use"
else:
    raise AssertionError("a topic was made by mere use")
admin.close()

changes = subprocess.run(["/usr/local/lib/streampulse/kafka-topics", "--check"], check=True, capture_output=True)
assert not changes.stdout, f"a second run would change {changes.stdout!r}"


def metrics() -> dict[str, dict[str, float]]:
    """Return what the agent in the broker's JVM shows: by name, then by the labels as they are written."""
    pair = f"streampulse:{os.environ['STREAMPULSE_MONITORING_PASSWORD']}".encode()
    request = urllib.request.Request(AGENT, headers={"Authorization": f"Basic {base64.b64encode(pair).decode()}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found: dict[str, dict[str, float]] = {}
    for line in lines:
        if line and not line.startswith("#"):
            name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()  # type: ignore[union-attr]
            found.setdefault(name, {})[labels or ""] = float(value)
    return found


try:
    with urllib.request.urlopen(AGENT, timeout=10) as anybody:
        status = anybody.status
except urllib.error.HTTPError as error:
    status = error.code
assert status == 401, f"without a password the agent answers {status}"
other = subprocess.run(["runuser", "-u", "nobody", "--", "cat", "/etc/kafka/jmx.yml"], check=False, capture_output=True)
assert other.returncode != 0, "anybody can read the agent's file, which has the password's hash"
shown = metrics()
assert shown["kafka_server_kafkaserver_brokerstate"] == {"": 3}, "the broker's state is not shown, or is not running"
assert shown["kafka_controller_kafkacontroller_activecontrollercount"] == {"": 1}
for name in (
    "kafka_controller_kafkacontroller_offlinepartitionscount",
    "kafka_server_replicamanager_underreplicatedpartitions",
    "kafka_server_replicamanager_underminisrpartitioncount",
    "kafka_server_replicamanager_isrshrinks_total",
    "kafka_server_brokertopicmetrics_failedfetchrequests_total",
    "jmx_scrape_error",
):
    assert shown[name] == {"": 0}, f"{name} is {shown.get(name)}"
for name in ("networkprocessoravgidlepercent", "requesthandleravgidlepercent"):
    idle = next(series[""] for key, series in shown.items() if key.endswith(name))
    assert 0 <= idle <= 1, f"{name} is {idle}"
for request in ("Produce", "FetchConsumer"):
    quantiles = {
        quantile: shown["kafka_network_requestmetrics_totaltimems"][f'quantile="{quantile}",request="{request}"']
        for quantile in ("0.5", "0.99")
    }
    assert 0 <= quantiles["0.5"] <= quantiles["0.99"] < math.inf, f"{request}: {quantiles}"
# One record in a transaction of its own is the record and the transaction's marker.
before, dead = shown["kafka_log_log_logendoffset"], f'partition="0",topic="{DLQ}"'
assert before[dead] >= sent.offset + 2, before
assert set(shown["kafka_log_log_size"]) == set(before) >= {
    dead, *(f'partition="{partition}",topic="{TOPIC}"' for partition in range(4)),
}  # fmt: skip
taken = shown["kafka_server_brokertopicmetrics_messagesin_total"][f'topic="{DLQ}"']
assert taken >= 2, f"{taken} messages went into {DLQ}"
refused = shown["kafka_network_requestmetrics_errors_total"]
assert refused['error="MESSAGE_TOO_LARGE",request="Produce"'] >= 1, refused
assert not any('error="NONE"' in labels for labels in refused), refused
assert shown["jvm_memory_used_bytes"]['area="heap"'] < shown["jvm_memory_max_bytes"]['area="heap"']
begun = time.monotonic()
for _ in range(5):
    metrics()
each = (time.monotonic() - begun) / 5
assert each < 0.5, f"a scrape takes {each:.2f} s"
listening = subprocess.run(["ss", "-Hltn", "sport = :9404"], check=True, capture_output=True, text=True).stdout.split()
assert SERVERS[0].rpartition(":")[0] in listening[3], f"the agent listens at {listening[3]}"

journal = subprocess.run(["journalctl", "-u", "kafka", "-o", "cat"], check=True, capture_output=True, text=True).stdout
assert "INFO" in journal, "Kafka logs nothing of its own"
assert "<6>" not in journal, "the priorities of Kafka's lines are in their text"
weighty = subprocess.run(
    ["journalctl", "-u", "kafka", "-o", "cat", "-p", "warning", "_COMM=java"],
    check=True,
    capture_output=True,
    text=True,
).stdout.splitlines()
assert weighty, "no line of Kafka's is a warning by its priority"
assert not [line for line in weighty if line.startswith("INFO ")], weighty


def main_pid() -> int:
    """Return the pid of the broker's process, 0 while there is none."""
    shown = subprocess.run(
        ["systemctl", "show", "--property=MainPID", "--value", "kafka"], check=True, capture_output=True, text=True
    )
    return int(shown.stdout)


killed = main_pid()
assert killed > 0, "the broker does not run"
subprocess.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", "kafka"], check=True)
begun = time.monotonic()
while main_pid() in (0, killed):
    assert time.monotonic() - begun < 60, "the broker was not started again within 60 s"
    time.sleep(0.25)
subprocess.run(["/usr/local/bin/streampulse", "wait", "kafka", "--timeout", "90"], check=True)
assert read(sent.partition, sent.offset).value == value, "the record is gone after the broker was killed"
assert metrics()["kafka_server_kafkaserver_brokerstate"] == {"": 3}, "the agent is gone after the broker was killed"
