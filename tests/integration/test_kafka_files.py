"""Files of Kafka that a power cut left empty: the broker starts, and its logs are what they were."""

import subprocess
import uuid
from pathlib import Path

from broker import Broker

SCRIPT = Path(__file__).parents[2] / "ansible/roles/kafka/files/kafka-files"


def run(broker: Broker, action: str) -> str:
    command = [str(SCRIPT), action, str(broker.data), str(broker.data.parent / "copies")]
    return str(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_empty_files_are_restored_and_the_logs_are_whole(broker: Broker) -> None:
    topic = broker.topics(f"events-{uuid.uuid4()}", partitions=2).topic
    with broker.producer() as producer:
        producer.send(topic, b"value", partition=1).get(10)
    assert run(broker, "save") == ""
    broker.kill()
    files = ["meta.properties", f"{topic}.dlq-0/partition.metadata", f"{topic}-1/partition.metadata"]
    for name in (*files, "__cluster_metadata-0/quorum-state"):
        (broker.data / name).write_bytes(b"")

    lines = run(broker, "restore").splitlines()
    assert len(lines) == len(files) + 1
    assert any(f"restored from {topic}-0/partition.metadata" in line for line in lines)
    broker.start()

    assert broker.end(topic, 1) == 1
    assert not list(broker.data.glob("*-stray"))
    assert run(broker, "restore") == ""
    # Space for a broker whose disk is full.
    reserve = broker.data.parent / "reserve"
    assert reserve.stat().st_blocks * 512 >= 256 * 2**20
    reserve.unlink()
