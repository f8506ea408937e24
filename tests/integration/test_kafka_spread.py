"""A broker without a vote joins a cluster that stores events, gets its share of them, and leaves again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from broker import Broker
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic

SCRIPT = Path(__file__).parents[2] / "ansible/roles/kafka/files/kafka-topics"


def test_replicas_move_to_a_new_broker_and_back(tmp_path: Path) -> None:
    with Broker() as first, first.beside() as second, first.admin() as admin:
        admin.create_topics([NewTopic("events", replica_assignments={number: [1] for number in range(4)})])
        with first.producer() as producer:
            for number in range(400):
                producer.send("events", bytes(1000), partition=number % 4)
        file = tmp_path / "topics.json"
        file.write_text(json.dumps({"bootstrap_servers": first.address, "topics": []}))

        def run(*options: str) -> list[str]:
            command = [sys.executable, str(SCRIPT), "--file", str(file), "--spread", *options]
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=90)
            assert done.returncode == 0, done.stderr
            return done.stdout.splitlines()

        def places() -> list[Any]:
            (topic,) = admin.describe_topics(["events"])
            assert all(each["leader_id"] == each["replica_nodes"][0] for each in topic["partitions"])
            return sorted(each["replica_nodes"] for each in topic["partitions"])

        planned = run("--check")
        assert places() == [[1]] * 4
        assert run("--rate", "1000000") == planned
        assert places() == [[1], [1], [2], [2]]
        assert run() == []
        # The limit of the copies is gone.
        limited = [ConfigResource(ConfigResourceType.BROKER, "2"), ConfigResource(ConfigResourceType.TOPIC, "events")]
        assert "throttled" not in str(admin.describe_configs(limited))
        assert [second.end("events", number) for number in range(4)] == [100] * 4

        run("--without", "2")
        assert places() == [[1]] * 4
        assert sum(first.end("events", number) for number in range(4)) == 400
