"""The race's own Kafka broker and PostgreSQL server: on loopback, in one folder, removed with it."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

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


@contextlib.contextmanager
def kafka(folder: Path, report: Report) -> Iterator[KafkaSettings]:
    """Run a broker with both topics.

    :raises OperatorError: it does not start.
    """
    store, item = Store(paths.cache_home() / "artifacts"), jars.jar_set("kafka", jars.read_lock(paths.repository()))
    store.ensure(item, report)
    java = ["java", "-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{store.folder(item)}/*"]
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
    with _running([*java, "kafka.Kafka", str(file)], folder / "kafka.log"):
        topics = [NewTopic(settings.topic, PARTITIONS, 1), NewTopic(settings.dlq_topic, 1, 1)]
        _until(lambda: _create(address, topics), KafkaError, folder / "kafka.log")
        yield settings


def _create(address: str, topics: Sequence[NewTopic]) -> None:
    client = KafkaAdminClient(bootstrap_servers=address, bootstrap_timeout_ms=2_000, request_timeout_ms=5_000)
    try:
        client.create_topics(topics)
    finally:
        client.close()


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[PostgresSettings]:
    """Run a PostgreSQL server that keeps the time of each commit, and return the settings of its superuser.

    :raises OperatorError: it is not installed or does not start.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    if not found:
        raise OperatorError("the race needs PostgreSQL's server on this machine: apt-get install -y postgresql")
    # PostgreSQL refuses to run as root.
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    who: dict[str, Any] = {} if account is None else {"user": account.pw_uid, "group": account.pw_gid}
    base = folder / "postgres"
    base.mkdir()
    port, password = free_port(), secrets.token_urlsafe(12)
    (base / "password").write_text(password)
    for each in (base, base / "password"):
        os.chown(each, *((-1, -1) if account is None else (account.pw_uid, account.pw_gid)))
    login = ["--username=postgres", f"--pwfile={base}/password", "--auth=scram-sha-256"]
    words = [str(found[-1]), "--pgdata", f"{base}/data", *login, "--encoding=UTF8", "--locale=C"]
    made = subprocess.run(words, cwd=base, capture_output=True, text=True, check=False, **who)  # noqa: S603 - fixed words
    if made.returncode != 0:
        raise OperatorError(f"PostgreSQL's folder cannot be made: {made.stderr.strip()}")
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "shared_buffers": "128MB",
        "track_commit_timestamp": "on",
    }
    words = [str(found[-1].with_name("postgres")), "-D", f"{base}/data"]
    words += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    settings = PostgresSettings(
        host="127.0.0.1",
        port=port,
        database="postgres",
        user="postgres",
        password=SecretStr(password),
        sslmode="disable",
    )
    with _running(words, folder / "postgres.log", signal.SIGINT, **who):
        _until(lambda: connect(settings, "race").close(), psycopg2.OperationalError, folder / "postgres.log")
        yield settings


@contextlib.contextmanager
def _running(
    words: Sequence[str], log: Path, ending: signal.Signals = signal.SIGTERM, **options: Any
) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - fixed words
            words, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True, cwd="/", **options
        )
    try:
        yield
    finally:
        process.send_signal(ending)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(ask: Any, refusal: type[Exception], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            ask()
        except refusal as error:
            if time.monotonic() > deadline:
                last = log.read_text(errors="replace").strip().splitlines()[-1:] or [str(error)]
                raise OperatorError(f"a server of the race does not start: {last[0]}") from None
            time.sleep(0.2)
        else:
            return
