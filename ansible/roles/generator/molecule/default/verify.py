"""Asserts that events arrive on the topic, keyed by their stream, and keep arriving after the generator was killed."""

import json
import subprocess
import time
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition

LINES = Path("/etc/streampulse/kafka.env").read_text(encoding="utf-8").splitlines()
ENV = {key: value.strip("'") for key, value in (line.split("=", 1) for line in LINES if "=" in line)}
TOPIC = ENV["STREAMPULSE_KAFKA_TOPIC"]
consumer = KafkaConsumer(bootstrap_servers=ENV["STREAMPULSE_KAFKA_BOOTSTRAP_SERVERS"].split(","), group_id=None)
partitions = [TopicPartition(TOPIC, number) for number in sorted(consumer.partitions_for_topic(TOPIC) or ())]
consumer.assign(partitions)


def arriving(seconds: float) -> int:
    """Return how many events arrived, each looked at, until there were 50 or the time was over."""
    seen, end = 0, time.monotonic() + seconds
    while seen < 50 and time.monotonic() < end:
        for record in (record for records in consumer.poll(timeout_ms=1000).values() for record in records):
            event = json.loads(record.value)
            assert record.key == event["stream_id"].encode(), f"key {record.key!r} of stream {event['stream_id']}"
            assert {"event_id", "ts", "event_type", "user_id"} <= event.keys(), event
            seen += 1
    return seen


consumer.seek_to_end()
for partition in partitions:
    consumer.position(partition)
assert arriving(20) >= 50, "fewer than 50 events arrived in 20 s"
subprocess.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", "streampulse-generator"], check=True)
time.sleep(0.5)
consumer.seek_to_end()
for partition in partitions:
    consumer.position(partition)
assert arriving(30) >= 50, "the generator did not come back within 30 s"
