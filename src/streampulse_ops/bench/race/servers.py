"""The race's own Kafka broker and PostgreSQL server: on loopback, in one folder, removed with it."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import psycopg2
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import KafkaError
from pydantic import SecretStr

from streampulse.core.errors import OperatorError
from streampulse.core.postgres import connect
from streampulse.core.settings import KafkaSettings, PostgresSettings
from streampulse_ops import command, paths
from streampulse_ops.artifacts import jars
from streampulse_ops.artifacts.store import Store
from streampulse_ops.machines import Report

#: As the role kafka makes it.
PARTITIONS: Final = 4
_TOPIC: Final = "stream.events"
_START_SECONDS: Final = 60.0


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


class Server:
    """One server's process, which a ``with`` block starts and ends.

    :param log: the file of its output.
    :param ending: the signal that ends it in order.
    :param options: of :class:`subprocess.Popen`.
    """

    def __init__(
        self, words: Sequence[str], log: Path, ending: signal.Signals = signal.SIGTERM, **options: Any
    ) -> None:
        self.log = log
        self._ending = ending
        self.process: subprocess.Popen[bytes] | None = None
        self._words, self._options = words, options

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - fixed words
                self._words,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                **self._options,
            )

    def wait(self, ask: Callable[[], object], refusal: type[Exception]) -> None:
        """Ask until it answers.

        :raises OperatorError: it has ended, or does not answer in time.
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                ask()
            except refusal as error:
                if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                    # The lines of a Java trace that name no cause are indented.
                    said = [line for line in self.log.read_text(errors="replace").splitlines() if line.lstrip() == line]
                    last = next(filter(None, reversed(said)), str(error))
                    raise OperatorError(f"a server of the race does not start: {last}") from None
                time.sleep(0.1)
            else:
                return

    def stop(self, how: signal.Signals | None = None) -> None:
        """End it, in order or by another signal, and kill it after half a minute."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(how or self._ending)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def kafka_java(heap: str, report: Report) -> list[str]:
    """Return the words that start one of Kafka's programs, and fetch its jars before the first use.

    :param heap: such as ``512m``.
    """
    store, item = Store(paths.cache_home() / "artifacts"), jars.jar_set("kafka", jars.read_lock(paths.repository()))
    store.ensure(item, report)
    return ["java", f"-Xms{heap}", f"-Xmx{heap}", "-XX:+UseSerialGC", "-cp", f"{store.folder(item)}/*"]


@contextlib.contextmanager
def kafka(folder: Path, report: Report) -> Iterator[KafkaSettings]:
    """Run a broker with both topics.

    :raises OperatorError: it does not start.
    """
    java = kafka_java("512m", report)
    address, controller = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    options = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.bootstrap.servers": controller,
        "listeners": f"PLAINTEXT://{address},CONTROLLER://{controller}",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": folder / "kafka",
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
    }
    file = folder / "server.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in options.items()))
    identity = ["--cluster-id", "c3RyZWFtcHVsc2UtcmFjZQ", "--config", str(file), "--standalone"]
    command.run([*java, "kafka.tools.StorageTool", "format", *identity])
    settings = KafkaSettings(bootstrap_servers=address, topic=_TOPIC, dlq_topic=f"{_TOPIC}.dlq")
    topics = [NewTopic(settings.topic, PARTITIONS, 1), NewTopic(settings.dlq_topic, 1, 1)]

    def create() -> None:
        with kafka_admin(address) as client:
            client.create_topics(topics)

    with Server([*java, "kafka.Kafka", str(file)], folder / "kafka.log") as server:
        server.wait(create, KafkaError)
        yield settings


@contextlib.contextmanager
def kafka_admin(address: str) -> Iterator[Any]:
    """Return a client that makes and removes topics."""
    client = KafkaAdminClient(bootstrap_servers=address, bootstrap_timeout_ms=2_000, request_timeout_ms=5_000)
    try:
        yield client
    finally:
        client.close()


def postgres_binaries() -> Path:
    """Return the folder of this machine's newest ``postgres`` and ``initdb``.

    :raises OperatorError: they are not installed.
    """
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    if on_path is not None:
        folders.append(Path(on_path).parent)
    usable = [folder for folder in folders if (folder / "postgres").exists()]
    if not usable:
        raise OperatorError("the race needs PostgreSQL's server on this machine: apt-get install -y postgresql")
    return max(usable, key=lambda folder: [int(part) for part in folder.parent.name.split(".") if part.isdigit()])


def postgres_server(base: Path, password: str, options: Mapping[str, object], *locale: str) -> Server:
    """Make the data of a PostgreSQL server, which is not started yet.

    :param base: an empty folder.
    :param password: of the superuser ``postgres``.
    :param options: settings of the server, its port among them.
    :param locale: further options of ``initdb``.
    :raises OperatorError: PostgreSQL is not installed, or refuses.
    """
    binaries = postgres_binaries()
    # PostgreSQL refuses to run as root.
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    who: dict[str, Any] = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
    (base / "password").write_text(password)
    for each in (base, base / "password"):
        os.chown(each, who.get("user", -1), who.get("group", -1))
    words = [str(binaries / "initdb"), "--pgdata", f"{base}/data", "--username=postgres", f"--pwfile={base}/password"]
    words += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", *locale]
    made = subprocess.run(words, cwd="/", capture_output=True, text=True, check=False, **who)  # noqa: S603 - fixed words
    if made.returncode != 0:
        raise OperatorError(f"PostgreSQL's folder cannot be made: {made.stderr.strip()}")
    given = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", **options}
    chosen = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]
    # SIGTERM would wait for the sessions to end.
    return Server([str(binaries / "postgres"), "-D", f"{base}/data", *chosen], base / "log", signal.SIGINT, **who)


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[PostgresSettings]:
    """Run a PostgreSQL server that keeps the time of each commit, and return the settings of its superuser.

    :raises OperatorError: it is not installed or does not start.
    """
    base = folder / "postgres"
    base.mkdir()
    settings = PostgresSettings(
        host="127.0.0.1",
        port=free_port(),
        database="postgres",
        user="postgres",
        password=SecretStr(secrets.token_urlsafe(12)),
        sslmode="disable",
    )
    options = {"port": settings.port, "shared_buffers": "128MB", "track_commit_timestamp": "on"}
    with postgres_server(base, settings.password.get_secret_value(), options) as server:
        server.wait(lambda: connect(settings, "race").close(), psycopg2.OperationalError)
        yield settings
