"""What races: commands, environments, and the tree of processes of each."""

import contextlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

import streampulse
from streampulse.core.settings import KafkaSettings, PostgresSettings
from streampulse.oracle.tables import MinuteRow
from streampulse_ops import paths
from streampulse_ops.artifacts import jars
from streampulse_ops.artifacts.python import virtual_environment
from streampulse_ops.artifacts.spark import spark_set
from streampulse_ops.artifacts.store import ArtifactSet, Store, digest_of
from streampulse_ops.bench.race.servers import free_port
from streampulse_ops.machines import Report

LOCK: Final = "requirements/peers.lock"
#: Spark's own connector to Kafka, which streampulse does not use.
CONNECTOR: Final = {
    "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0": (
        "64539c45e5d39f7ddb747312c239f38f5208d08c1a0ddf7d70beb2fbd9373705"
    ),
    "org.apache.spark:spark-token-provider-kafka-0-10_2.13:4.0.0": (
        "f2be3b76f9e6cbe63379d4e4e0dc14f59dbf056ae2ad16ff15ac108004c86767"
    ),
    "org.apache.kafka:kafka-clients:3.9.2": "014b4ef36884478a932641818b080c36a8f8e2e92dc771e800c9d2694f4f83d8",
    "org.apache.commons:commons-pool2:2.12.0": "6d3bd18df8410f3e31b031aca582cc109342358a62a2759ebd0c4cdf30d06f8b",
}
_PROGRAMS: Final = Path(__file__).with_name("peers")
_ALL: Final = MinuteRow._fields
_COUNTS: Final = _ALL[:5]


@dataclass(frozen=True)
class Tools:
    """Where the programs are: the peers' Python, Spark's folder, the connector's folder."""

    python: Path
    spark: Path
    connector: Path


@dataclass(frozen=True)
class Runner:
    """One that races.

    :param columns: the columns of a row that it counts.
    :param command: its command line, by the tools and its empty folder.
    """

    title: str
    columns: tuple[str, ...]
    command: Callable[[Tools, Path], list[str]]


def _spark_submit(tools: Tools, executor: str, megabytes: int, *more: str) -> list[str]:
    cores = os.cpu_count() or 1
    properties = {
        "spark.driver.memory": "1g",
        "spark.executor.memory": f"{megabytes}m",
        "spark.executor.extraJavaOptions": executor,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "UTC",
    }
    given = [word for name, value in properties.items() for word in ("--conf", f"{name}={value}")]
    submit = str(tools.spark / "pyspark/bin/spark-submit")
    return [submit, "--master", f"local-cluster[1,{cores},{megabytes}]", *given, *more]


def _own(tools: Tools, _folder: Path) -> list[str]:
    main = Path(streampulse.__path__[0], "job/__main__.py")
    # As hosts have it: ansible/playbooks/group_vars/all/streampulse.yml.
    return _spark_submit(tools, "-XX:+UseSerialGC -XX:TieredStopAtLevel=1", 512, str(main))


def _bytewax(tools: Tools, folder: Path) -> list[str]:
    python, program = str(tools.python), str(_PROGRAMS / "bytewax_rows.py")
    store = folder / "recovery"
    if not store.exists():
        store.mkdir()
        subprocess.run([python, "-m", "bytewax.recovery", store, "1"], check=True)  # noqa: S603 - fixed words
    # A process for each core; the same flow in one process with two threads shares Python's lock.
    scale = ["-p", str(os.cpu_count() or 1), "-w", "1"]
    return [python, "-m", "bytewax.testing", f"{program}:flow", *scale, "-r", str(store), "-s", "1", "-b", "0"]


def _quix(tools: Tools, _folder: Path) -> list[str]:
    return [str(tools.python), str(_PROGRAMS / "quix_rows.py")]


def _spark(tools: Tools, _folder: Path) -> list[str]:
    files = ",".join(str(file) for file in sorted(tools.connector.glob("*.jar")))
    # Without options for the JVM: both its compilers, and its usual collector.
    return _spark_submit(tools, "", 1024, "--jars", files, str(_PROGRAMS / "spark_rows.py"))


OWN: Final = "streampulse"
RUNNERS: Final[Mapping[str, Runner]] = {
    OWN: Runner("streampulse", _ALL, _own),
    "bytewax": Runner("Bytewax", _ALL[:6], _bytewax),
    "quix": Runner("Quix Streams", _COUNTS, _quix),
    "spark": Runner("Spark alone", _COUNTS, _spark),
}


def tools(folder: Path, report: Report) -> Tools:
    """Fetch and unpack the programs that race.

    :raises OperatorError: something cannot be fetched.
    """
    root, store = paths.repository(), Store(paths.cache_home() / "artifacts")

    def make(target: Path, made: Report) -> None:
        jars.fetch(CONNECTOR, target, made)
        jars.check(CONNECTOR, target)

    digest = digest_of(*(f"{name} {pin}" for name, pin in CONNECTOR.items()))
    connector = ArtifactSet("connector", digest, make, "fetching Spark's connector to Kafka")
    store.ensure(connector, report)
    report("the peers' Python environment")
    python = virtual_environment(folder / "peers", root / LOCK)
    return Tools(python, spark_programs(folder / "spark", report), store.folder(connector))


def spark_programs(folder: Path, report: Report) -> Path:
    """Unpack Spark's wheel into a folder, and return the folder."""
    store, wheel = Store(paths.cache_home() / "artifacts"), spark_set(paths.repository())
    store.ensure(wheel, report)
    with zipfile.ZipFile(next(store.folder(wheel).glob("pyspark-*.whl"))) as archive:
        archive.extractall(folder)
    for program in (folder / "pyspark/bin").iterdir():
        program.chmod(0o755)
    return folder


def environment(
    kafka: KafkaSettings, postgres: PostgresSettings, tools: Tools, folder: Path, own: bool
) -> dict[str, str]:
    """Return the variables of a runner's processes.

    :param folder: the runner's own folder.
    """
    source = Path(streampulse.__path__[0]).parent
    return {
        **os.environ,
        "SPARK_HOME": str(tools.spark / "pyspark"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(folder),
        "PYSPARK_PYTHON": sys.executable if own else str(tools.python),
        **({"PYTHONPATH": os.pathsep.join([str(tools.spark), str(source)])} if own else {}),
        "RACE_BROKER": kafka.bootstrap_servers,
        "RACE_TOPIC": kafka.topic,
        "RACE_GROUP": folder.name,
        "RACE_STATE": str(folder / "state"),
        "PGHOST": postgres.host,
        "PGPORT": str(postgres.port),
        "PGDATABASE": postgres.database,
        "PGUSER": postgres.user,
        "PGPASSWORD": postgres.password.get_secret_value(),
        **job_variables(kafka, postgres, folder / "state"),
    }


def job_variables(kafka: KafkaSettings, postgres: PostgresSettings, checkpoints: Path) -> dict[str, str]:
    """Return the settings that the job needs, as environment variables. Its metrics get a free port."""
    return {
        "STREAMPULSE_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "STREAMPULSE_KAFKA_TOPIC": kafka.topic,
        "STREAMPULSE_KAFKA_DLQ_TOPIC": kafka.dlq_topic,
        "STREAMPULSE_POSTGRES_HOST": postgres.host,
        "STREAMPULSE_POSTGRES_PORT": str(postgres.port),
        "STREAMPULSE_POSTGRES_DATABASE": postgres.database,
        "STREAMPULSE_POSTGRES_USER": postgres.user,
        "STREAMPULSE_POSTGRES_PASSWORD": postgres.password.get_secret_value(),
        "STREAMPULSE_POSTGRES_SSLMODE": postgres.sslmode,
        "STREAMPULSE_JOB_CHECKPOINT_DIR": str(checkpoints),
        "STREAMPULSE_JOB_METRICS_PORT": str(free_port()),
    }


class Processes:
    """A runner's processes: started, measured, killed together, and started again when they end by themselves."""

    def __init__(self, command: list[str], variables: Mapping[str, str], folder: Path) -> None:
        self._command, self._variables, self._folder = command, variables, folder
        #: How often they ended by themselves.
        self.ends = 0
        self._process = self._start()

    def _start(self) -> psutil.Popen:
        with (self._folder / "log").open("ab") as log:
            return psutil.Popen(
                self._command,
                cwd=self._folder,
                env=self._variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _tree(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self._process, *self._process.children(recursive=True)]
        return []

    def memory(self) -> int:
        """Return the resident memory of all processes in bytes. Pages that several share count for each."""
        total = 0
        for each in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += each.memory_info().rss
        return total

    def last_line(self) -> str:
        """Return the last line that they wrote."""
        return ((self._folder / "log").read_text(errors="replace").strip().splitlines() or ["empty"])[-1]

    def keep(self) -> None:
        """Start them again if they have ended, as a service manager does."""
        if self._process.poll() is not None:
            self.ends += 1
            self._process = self._start()

    def kill(self) -> None:
        """Kill them all at once, with SIGKILL."""
        for each in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self._process.wait()

    def restart(self) -> None:
        """Kill them all and start them again."""
        self.kill()
        self._process = self._start()
