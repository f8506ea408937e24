"""Kafka brokers for tests, in temporary folders, on loopback. The first of them are controllers, too."""

import contextlib
import json
import shutil
import signal
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import KafkaError
from ports import free_port

from streampulse.core.settings import KafkaSettings
from streampulse_ops.bench.race.servers import Server, kafka_admin, kafka_java

# Any 16 bytes.
_CLUSTER = "c3RyZWFtcHVsc2UtdGVzdA"


def event(stream: str, ahead: float = 0, **fields: object) -> bytes:
    """Return an event, ``ahead`` minutes after the present; a viewer's join where the fields say nothing else."""
    ts = (datetime.now(UTC) + timedelta(minutes=ahead)).isoformat().replace("+00:00", "Z")
    own = {"event_id": str(uuid.uuid4()), "ts": ts, "event_type": "viewer_join", "stream_id": stream, "user_id": "u"}
    return json.dumps(own | fields, separators=(",", ":")).encode()


class Broker:
    """One broker. Use as a context manager.

    :param node: its number from 1.
    :param controllers: the controllers' ports, in the order of numbers. A broker with a higher number has no vote.
    """

    def __init__(self, node: int = 1, controllers: tuple[int, ...] = ()) -> None:
        self._base = Path(tempfile.mkdtemp(prefix="streampulse-test-kafka-"))
        self._node, self._controllers = node, controllers or (free_port(),)
        self._config = self._base / "server.properties"
        #: The folder with a folder for each partition.
        self.data = self._base / "data"
        self.address = f"127.0.0.1:{free_port()}"
        self._java = [*kafka_java("384m", lambda _: None), "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=ERROR"]
        self._server = Server([*self._java, "kafka.Kafka", str(self._config)], self._base / "log")

    def __enter__(self) -> "Broker":
        try:
            self.format()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def format(self) -> None:
        """Prepare the folder."""
        votes = self._node <= len(self._controllers)
        listeners = f"PLAINTEXT://{self.address}"
        if votes:
            listeners += f",CONTROLLER://127.0.0.1:{self._controllers[self._node - 1]}"
        settings = {
            "process.roles": "broker,controller" if votes else "broker",
            "node.id": self._node,
            "controller.quorum.bootstrap.servers": ",".join(f"127.0.0.1:{port}" for port in self._controllers),
            "listeners": listeners,
            "advertised.listeners": listeners,
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self.data,
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": len(self._controllers),
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": len(self._controllers),
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 1,
            "group.initial.rebalance.delay.ms": 0,
            "log.cleaner.dedupe.buffer.size": 16777216,
            # A killed broker is let in again when its session has ended.
            "broker.session.timeout.ms": 1000,
            "broker.heartbeat.interval.ms": 200,
            "unclean.leader.election.interval.ms": 500,
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        # Identifiers of 16 bytes: the last of 22 characters has two bits.
        voters = [
            f"{n}@127.0.0.1:{port}:{_CLUSTER[:-1]}{'AQgw'[n]}" for n, port in enumerate(self._controllers, start=1)
        ]
        command = ["format", "--cluster-id", _CLUSTER, "--config", str(self._config)]
        if not votes:
            command += ["--no-initial-controllers"]
        else:
            command += ["--standalone"] if len(voters) == 1 else ["--initial-controllers", ",".join(voters)]
        self.java("kafka.tools.StorageTool", *command)

    def java(self, main: str, *arguments: str, stdin: bytes = b"") -> None:
        """Run a tool of Kafka's to its end.

        :raises subprocess.CalledProcessError: it failed.
        """
        subprocess.run([*self._java, main, *arguments], check=True, capture_output=True, timeout=60, input=stdin)

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._base, ignore_errors=True)

    def start(self) -> None:
        """Start the broker and wait until it answers."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start the broker."""
        self._server.start()

    def wait(self) -> None:
        """Wait until the broker answers."""

        def ask() -> None:
            with self.admin() as admin:
                admin.list_topics()

        self._server.wait(ask, KafkaError)

    def kill(self) -> None:
        """End the broker at once, as a power cut does; what it wrote is in the kernel's cache and stays."""
        self._server.stop(signal.SIGKILL)

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Stop the broker's process: its connections stay open, and nothing is answered."""
        assert self._server.process
        self._server.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.process.send_signal(signal.SIGCONT)

    def lose_end(self, topic: str, partition: int, first: int) -> None:
        """Remove the batches from an offset on from a partition's log. The broker must be down.

        :raises AssertionError: the log has no such batch.
        """
        folder = self.data / f"{topic}-{partition}"
        for file in sorted(folder.glob("*.log"), reverse=True):
            data, position = file.read_bytes(), 0
            while position + 12 <= len(data):
                offset, size = struct.unpack_from(">qi", data, position)
                if size <= 0:
                    break
                if offset >= first:
                    with file.open("r+b") as handle:
                        handle.truncate(position)
                    for index in folder.glob("*.snapshot"):
                        index.unlink()
                    (self.data / ".kafka_cleanshutdown").unlink(missing_ok=True)
                    return
                position += 12 + size
        raise AssertionError(f"{folder} has no batch from offset {first} on")

    def cut(self, topic: str, first: int, partition: int = 0) -> None:
        """Lose the end of a partition's log in a power cut: down, cut, up again."""
        self.kill()
        self.lose_end(topic, partition, first)
        self.start()

    def beside(self) -> "Broker":
        """Return a second broker, without a vote."""
        return Broker(len(self._controllers) + 1, self._controllers)

    def admin(self) -> contextlib.AbstractContextManager[Any]:
        """Return a client that makes and removes topics."""
        return kafka_admin(self.address)

    def topics(self, name: str, partitions: int = 1, replicas: list[int] | None = None) -> KafkaSettings:
        """Make a topic of events and its topic of dead letters, as the role does, and return the settings of both.

        :param replicas: the brokers that hold the events, any of which may become the leader.
        """
        configs = {"message.timestamp.type": "LogAppendTime"}
        events = NewTopic(name, partitions, 1, topic_configs=configs)
        if replicas:
            unclean = {**configs, "unclean.leader.election.enable": "true"}
            events = NewTopic(name, replica_assignments={0: replicas}, topic_configs=unclean)
        # Letters are led by this broker, which the tests leave alone.
        everyone = sorted(range(1, len(self._controllers) + 1), key=lambda node: node != self._node)
        letters = NewTopic(f"{name}.dlq", replica_assignments={0: everyone}, topic_configs=configs)
        with self.admin() as admin:
            admin.create_topics([events, letters])
        return KafkaSettings(bootstrap_servers=self.address, topic=name, dlq_topic=f"{name}.dlq")

    def stamp(self, topic: str, kind: str) -> None:
        """Have a topic take the producers' stamps, however far ahead (``CreateTime``), or give its own again."""
        limits = {"message.timestamp.type": kind, "message.timestamp.after.max.ms": str(2**62)}
        with self.admin() as admin:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=limits)])

    @contextlib.contextmanager
    def producer(self, **options: Any) -> Iterator[Any]:
        """Return a producer; all that was sent is out at the end."""
        producer = KafkaProducer(bootstrap_servers=self.address, **options)
        try:
            yield producer
            producer.flush()
        finally:
            producer.close()

    def remove_records(self, topic: str, before: int) -> None:
        """Remove the records of partition 0 before an offset, as retention does."""
        with self.admin() as admin:
            admin.delete_records({TopicPartition(topic, 0): before})

    def end(self, topic: str, partition: int = 0) -> int:
        """Return the offset after the last record of a partition."""
        consumer = KafkaConsumer(bootstrap_servers=self.address, group_id=None)
        try:
            where = TopicPartition(topic, partition)
            return int(consumer.end_offsets([where])[where])
        finally:
            consumer.close()


@contextlib.contextmanager
def cluster(size: int) -> Iterator[list[Broker]]:
    """Start brokers that elect leaders among themselves."""
    controllers = tuple(free_port() for _ in range(size))
    with contextlib.ExitStack() as stack:
        brokers = [Broker(node, controllers) for node in range(1, size + 1)]
        for each in brokers:
            stack.callback(each.__exit__)
            each.format()
            each.begin()
        for each in brokers:
            each.wait()
        yield brokers
