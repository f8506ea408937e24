"""The host's checks: silent on a healthy host; each fault has its cause and its command."""

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
from kafka.errors import KafkaConnectionError

from streampulse.core.kafka import Log
from streampulse.host import migrate
from streampulse.host.check import command, host, job, kafka, machine, postgres
from streampulse.host.check.command import findings_of
from streampulse.host.check.host import Finding, Host
from streampulse_ops.monitoring import findings

UPTIME = 10_000.0
LIMITS = {"disk_full": 0.9, "memory_low": 0.05, "records_lost": 3600, "unit_flapping": 3, "unit_flapping_seconds": 600}
ENVIRONMENT = {
    "STREAMPULSE_KAFKA_BOOTSTRAP_SERVERS": "10.0.0.1:9092",
    "STREAMPULSE_KAFKA_TOPIC": "stream.events",
    "STREAMPULSE_KAFKA_DLQ_TOPIC": "stream.events.dlq",
    "STREAMPULSE_POSTGRES_HOST": "10.0.0.1",
    "STREAMPULSE_POSTGRES_PORT": "5432",
    "STREAMPULSE_POSTGRES_DATABASE": "d",
    "STREAMPULSE_POSTGRES_USER": "u",
    "STREAMPULSE_POSTGRES_PASSWORD": "very secret",
    "STREAMPULSE_SPARK_MASTER": "spark://10.0.0.1:7077",
    "STREAMPULSE_SPARK_MASTER_UI": "http://10.0.0.1:8080",
    "STREAMPULSE_JOB_CHECKPOINT_DIR": "/var/lib/checkpoints",
    "STREAMPULSE_JOB_METRICS_HOST": "10.0.0.1",
    "STREAMPULSE_JOB_METRICS_PORT": "9108",
    "STREAMPULSE_API_HOST": "0.0.0.0",  # noqa: S104 - nothing is bound here
    "STREAMPULSE_API_PORT": "8000",
}


class FakeHost(Host):
    """A healthy host, until a test breaks a part."""

    def __init__(self) -> None:
        self.units = {
            unit: {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "NRestarts": "0",
                   "ActiveEnterTimestampMonotonic": str(int((UPTIME - 3600) * 1e6)), "Result": "success"}
            for unit in ("kafka.service", "spark-master.service", "postgresql@17-main.service",
                         "streampulse-job.service", "streampulse-api.service")
        }  # fmt: skip
        self.closed: set[int] = set()
        self.hanging: set[int] = set()
        self.broken: list[str] = []
        self.open = {("10.0.0.1", 9092), ("0.0.0.0", 8000), ("0.0.0.0", 22)}  # noqa: S104 - nothing is bound here
        self.list = [
            {"name": name, "unit": unit, "full": full, "listens": [["10.0.0.1", port] for port in ports], "data": ""}
            for name, unit, full, ports in (
                ("kafka", "kafka.service", False, [9092]),
                ("spark-master", "spark-master.service", False, [7077, 8080]),
                ("postgres", "postgresql@17-main.service", False, [5432]),
                ("job", "streampulse-job.service", False, [9108]),
                ("api", "streampulse-api.service", False, [8000]),
                ("prometheus", "prometheus.service", True, [9090]),
            )
        ]
        self.connected: list[tuple[str, int]] = []
        self.used: dict[str, list[tuple[str, int, int]]] = {}
        self.kib = {"MemTotal": 4 * 2**20, "MemAvailable": 2**20}
        self.master: Any = {
            "status": "ALIVE",
            "workers": [{"state": "ALIVE", "cores": 2}, {"state": "DEAD", "cores": 2}],
            "activeapps": [{"id": "app-1", "state": "RUNNING", "cores": 2}],
        }
        self.health: tuple[int, Any] = (200, {"ok": True})

    def listed(self) -> list[dict[str, Any]]:
        return self.list

    def properties(self, unit: str) -> dict[str, str]:
        return self.units.get(unit, {"LoadState": "not-found", "ActiveState": "inactive"})

    def failed(self) -> list[str]:
        return self.broken

    def usage(self, unit: str) -> list[tuple[str, int, int]]:
        return self.used.get(unit, [("open files", 70, 100)])

    def listening(self) -> set[tuple[str, int]]:
        return self.open

    def limits(self) -> dict[str, float]:
        return LIMITS

    def uptime(self) -> float:
        return UPTIME

    def fetch(self, url: str) -> tuple[int, Any]:
        if any(f":{port}/" in url for port in self.hanging):
            raise OSError("timed out")
        if url == "http://10.0.0.1:8080/json/":
            return 200, self.master
        assert url == "http://127.0.0.1:8000/health"
        return self.health

    def connects(self, host: str, port: int) -> None:
        self.connected.append((host, port))
        if port in self.closed:
            raise ConnectionRefusedError("Connection refused")
        if port in self.hanging:
            raise TimeoutError("timed out")

    def memory(self) -> dict[str, int]:
        return self.kib


class World:
    """A healthy host, its database and its topics."""

    def __init__(self) -> None:
        self.host = FakeHost()
        self.migrations = sorted(path.stem for path in migrate.sql_directory().glob("*.sql"))
        self.ledger: list[tuple[Any, ...]] = [({"0": 100}, 1.0)]
        self.ends = {0: (0, 120)}
        self.spans: list[tuple[Any, ...]] = []
        self.event_clocks = [("0", -1.0), ("1", -90.0)]
        self.waiting: list[tuple[str, str, int]] = []
        self.excluded: list[tuple[Any, ...]] = []
        self.kafka_error: Exception | None = None
        self.postgres_error: Exception | None = None

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        if self.postgres_error is not None:
            raise self.postgres_error
        if "lag(" in statement:
            return []
        if "to_regclass" in statement:
            return [(True,)]
        if "_yoyo_migration" in statement:
            return [(each,) for each in self.migrations]
        if "excluded_records" in statement:
            return self.excluded
        if "SELECT clocks" in statement:
            return self.event_clocks
        if "lost_spans" in statement:
            return self.spans
        assert "newest_batches" in statement
        return [(shard, len(self.ledger), *row) for shard, row in enumerate(self.ledger)]

    def log(self) -> Log:
        if self.kafka_error is not None:
            raise self.kafka_error
        return Log("topic", *({number: pair[each] for number, pair in self.ends.items()} for each in (0, 1)))

    def faults(self) -> list[Finding]:
        found = findings_of(self.host)
        assert all(each.seen and not each.cause for each in found if each.ok)
        assert all(each.cause and each.fix and each.code in findings.codes() for each in found if not each.ok)
        assert "very secret" not in repr(found)
        return [each for each in found if not each.ok]

    def fault(self) -> Finding:
        (found,) = self.faults()
        return found


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(job, "query", made.query)
    monkeypatch.setattr(postgres, "query", made.query)
    monkeypatch.setattr(job, "_log", made.log)
    monkeypatch.setattr(job, "_waiting", lambda: made.waiting)
    # These need a broker or a deployed host: machines' tests cover them; their judgement is tested elsewhere.
    left_out = ("clock", "kafka.topics", "kafka.transactions", "disk", "drift")
    monkeypatch.setattr(command, "LOOKS", [each for each in host.LOOKS if each[0] not in left_out])
    return made


def test_a_healthy_host_has_no_fault(world: World) -> None:
    assert world.faults() == []
    found = {each.check: each.seen for each in findings_of(world.host)}
    assert found["spark.workers"] == "1 alive, 2 cores"
    assert found["job.progress"] == "newest batch 1 s ago, 20 records behind"
    assert found["postgres.schema"] == f"at {int(world.migrations[-1].split('.')[0])}"
    assert set(world.host.connected) == {
        ("10.0.0.1", 9092), ("10.0.0.1", 5432), ("10.0.0.1", 7077), ("10.0.0.1", 8080), ("10.0.0.1", 9108),
        ("10.0.0.1", 8000),
    }  # fmt: skip


def test_only_installed_services_are_checked(world: World) -> None:
    world.host.units = {"streampulse-api.service": world.host.units["streampulse-api.service"]}
    assert world.faults() == []
    names = {each.check for each in findings_of(world.host)}
    assert names == {
        "limits", "memory", "units.others", "units.api", "ports.private", "ports.api", "postgres.schema", "api.health",
    }  # fmt: skip


SPANS = [(2, 190, 249, "lost", 60.0), (1, 5, 9, "unread", 7_000.0)]
HELPER = "spark-classes.service"
UNHEALTHY = {"ok": False, "error": "PostgreSQL does not answer"}


def unit(**changed: str) -> Callable[[World], None]:
    return lambda world: world.host.units["kafka.service"].update(changed)


def failed_helper(world: World) -> None:
    world.host.units[HELPER] = {"FragmentPath": f"/etc/systemd/system/{HELPER}"}
    world.host.broken = [HELPER, "somebody-elses.service"]


def sets(what: str, value: Any) -> Callable[[World], None]:
    """Return a change of the world, or of its host."""
    return lambda world: setattr(world if hasattr(world, what) else world.host, what, value)


@pytest.mark.parametrize(
    ("change", "code", "cause"),
    [
        (unit(ActiveState="failed", Result="exit-code"), "SP-UNIT-001", "has failed (exit-code)"),
        (unit(ActiveState="inactive", SubState="dead"), "SP-UNIT-002", "is inactive (dead)"),
        (failed_helper, "SP-UNIT-001", f"{HELPER} has failed"),
        (sets("closed", {9092}), "SP-PORT-001", "nobody listens at 10.0.0.1:9092 (Connection refused)"),
        (sets("hanging", {9092}), "SP-CHECK-002", "it takes no connection at 10.0.0.1:9092: it hangs, or packets are"),
        (
            sets("open", {("::", 9092)}),
            "SP-PORT-002",
            "port 9092 is open on every address (::) instead of 10.0.0.1 only",
        ),
        (sets("kib", {"MemTotal": 2**22, "MemAvailable": 100_000}), "SP-HOST-005", "only 2 % of 4.0 GiB is available"),
        (sets("used", {"kafka.service": [("tasks", 80, 100)]}), "SP-HOST-006", "kafka.service has 80 tasks, and may"),
        (lambda world: world.migrations.pop(), "SP-POSTGRES-002", "the database lacks 0"),
        (lambda world: world.migrations.append("9999.x"), "SP-POSTGRES-003", "is of a newer release (9999.x)"),
        (sets("event_clocks", [("0", 299.0), ("1", 301.0)]), "SP-JOB-004", "of partition 1 is 301 s ahead of Postgre"),
        (sets("waiting", [("2", "PostgreSQL's", 70)]), "SP-JOB-005", "partition 2 waits at offset 70: PostgreSQL's cl"),
        (sets("spans", SPANS), "SP-JOB-002", "records 190 to 249 of partition 2 were lost after they were counted"),
        (
            sets("excluded", [(2, 190, 249, "invalid", 60.0)]),
            "SP-JOB-003",
            "records 190 to 249 of partition 2 do not count",
        ),
        (sets("health", (503, UNHEALTHY)), "SP-API-001", "/health answers 503 (PostgreSQL does not answer)"),
    ],
)
def test_a_fault_is_named_with_its_cause(world: World, change: Callable[[World], None], code: str, cause: str) -> None:
    change(world)
    found = world.fault()
    assert found.code == code
    assert cause in found.cause


@pytest.mark.parametrize(("restarts", "ago", "flaps"), [(1, 10, False), (3, 10, True), (3, 700, False)])
def test_a_unit_that_comes_back_again_and_again(world: World, restarts: int, ago: int, flaps: bool) -> None:
    world.host.units["spark-master.service"] |= {
        "NRestarts": str(restarts),
        "ActiveEnterTimestampMonotonic": str(int((UPTIME - ago) * 1e6)),
    }
    assert [each.check for each in world.faults()] == (["units.spark-master"] if flaps else [])


def test_monitoring_is_checked_where_the_roles_set_it_up(world: World) -> None:
    unit = {"LoadState": "loaded", "ActiveState": "failed", "SubState": "failed", "Result": "exit-code"}
    of_others = {**unit, "FragmentPath": "/usr/lib/systemd/system/prometheus.service", "DropInPaths": ""}
    world.host.units["prometheus.service"] = of_others
    assert world.faults() == []
    world.host.closed = {9090}
    drop_in = "/etc/systemd/system/prometheus.service.d/streampulse.conf"
    world.host.units["prometheus.service"] = {**of_others, "DropInPaths": drop_in}
    fault, port = world.faults()
    assert port.check == "ports.prometheus"
    assert fault.check == "units.prometheus"
    assert fault.cause == "prometheus.service has failed (exit-code)"
    assert fault.fix == "inv logs prometheus; inv up --full"


@pytest.mark.parametrize(("port", "code"), [(8080, "SP-SPARK-001"), (8000, "SP-API-001")])
def test_a_hanging_service_is_named_by_its_own_code(world: World, port: int, code: str) -> None:
    world.host.hanging = {port}
    assert {each.code for each in world.faults()} == {code, "SP-CHECK-002"}


def test_the_open_files_of_the_process_nearest_its_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"MainPID={os.getpid()}\nTasksCurrent=3\nTasksMax=infinity\n"
    monkeypatch.setattr(Host, "command", lambda *_words: said)
    # One child has a limit of its own, as a worker of a service may have, and one ends during the look.
    child, ended = subprocess.Popen(["/bin/sleep", "60"]), subprocess.Popen(["/bin/sleep", "60"])
    children = [psutil.Process(each.pid) for each in (ended, child)]
    monkeypatch.setattr(psutil.Process, "children", lambda _self, **_options: children)
    try:
        psutil.Process(child.pid).rlimit(psutil.RLIMIT_NOFILE, (6, 6))
        ended.kill()
        ended.wait()
        ((what, used, limit),) = Host().usage("this.service")
    finally:
        child.kill()
        child.wait()
    assert (what, limit) == ("open files", 6)
    assert 0 < used <= limit


def test_spark_without_workers_or_without_the_job_or_with_two(world: World) -> None:
    app = world.host.master["activeapps"][0]
    world.host.master["activeapps"] = [app, {**app, "id": "app-2"}]
    assert world.fault().cause == "2 applications are running (app-1, app-2)"
    world.host.master["activeapps"] = [{**app, "state": "WAITING"}]
    assert world.fault().cause == "no application is running (app-1 is WAITING)"
    world.host.master = {"status": "ALIVE", "workers": [{"state": "DEAD"}], "activeapps": []}
    assert [each.check for each in world.faults()] == ["spark.workers", "spark.job"]
    world.host.master = {"status": "RECOVERING"}
    assert world.fault().cause == "the master is RECOVERING"
    world.host.master = []
    assert "not understood" in world.fault().cause


def test_the_jobs_progress(world: World) -> None:
    world.ledger = [({"0": 100}, 31.0)]
    found = world.fault()
    assert found.cause == "20 records wait, and the job committed its newest batch 31 s ago"
    world.ends = {0: (0, 100)}
    assert world.faults() == [], "nothing to read: nothing to commit"
    world.ends = {0: (100, 100), 1: (50, 50)}
    assert world.faults() == [], "what retention took away does not wait"
    world.ledger, world.ends = [], {0: (0, 1)}
    assert world.fault().cause == "1 records wait, and the job has never committed a batch"
    world.host.units["streampulse-job.service"]["ActiveEnterTimestampMonotonic"] = str(int((UPTIME - 5) * 1e6))
    assert world.faults() == [], "it has only just started"


def test_a_shard_that_stands_is_named_beside_one_that_counts(world: World) -> None:
    world.ledger, world.ends = [({"0": 100}, 1.0), ({"1": 20}, 31.0)], {0: (0, 100), 1: (0, 50)}
    assert world.fault().cause == "30 records wait, and shard 1 of the job committed its newest batch 31 s ago"
    world.ends[0] = 0, 120
    assert world.fault().check == "job.progress.1"


def test_spark_has_an_application_for_each_shard(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMPULSE_JOB_SHARDS", "2")
    assert world.fault().cause == "1 applications are running (app-1), not 2"
    world.host.master["activeapps"] *= 2
    assert world.faults() == []


def test_a_service_that_does_not_answer_is_a_fault_and_not_a_traceback(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.kafka_error = KafkaConnectionError("gone")
    assert (world.fault().check, world.fault().fix) == ("job.progress", "inv logs kafka")
    world.kafka_error = None
    world.postgres_error = psycopg2.OperationalError("connection refused\n")
    assert {each.fix for each in world.faults()} == {"inv logs postgres"}
    world.postgres_error = None
    monkeypatch.delenv("STREAMPULSE_SPARK_MASTER_UI")
    assert world.fault().cause == "STREAMPULSE_SPARK_MASTER_UI is not set"


def test_no_systemd_or_no_list_is_one_fault(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nothing(unit: str) -> dict[str, str]:
        raise FileNotFoundError(f"systemctl, asked for {unit}")

    world.host.properties = nothing  # type: ignore[method-assign]
    assert [each.code for each in world.faults()] == ["SP-CHECK-003"]
    monkeypatch.setattr(host, "SERVICES_FILE", tmp_path / "services.json")
    (found,) = findings_of(Host())
    assert (found.cause, found.fix) == (
        f"{tmp_path}/services.json is missing, which lists the services of this host",
        "inv up",
    )


WANTED: dict[str, Any] = {"name": "t", "partitions": 1, "settings": {"retention.ms": "5"}}
PARTITION: dict[str, Any] = {"partition_index": 0, "leader_id": 1, "replica_nodes": [1, 2], "isr_nodes": [2, 1]}


@pytest.mark.parametrize(
    ("partitions", "settings", "cause"),
    [
        ([PARTITION], {"retention.ms": "5"}, ""),
        ([PARTITION] * 2, {"retention.ms": "5"}, "t has 2 partitions, 1 are wanted"),
        ([PARTITION], {"retention.ms": "6"}, "t has retention.ms 6 instead of 5"),
        ([PARTITION], {}, "t has retention.ms None instead of 5"),
        ([{**PARTITION, "leader_id": -1}], {"retention.ms": "5"}, "t, partitions [0]: no leader"),
        ([{**PARTITION, "isr_nodes": [1]}], {"retention.ms": "5"}, "t, partitions [0]: not in sync on brokers [2]"),
    ],
)
def test_topics(partitions: list[dict[str, Any]], settings: dict[str, Any], cause: str) -> None:
    (found,) = kafka._topic_findings(WANTED, partitions, settings)
    assert found.ok == (not cause)
    assert found.cause.startswith(cause)


def test_a_lost_broker_is_one_fault_of_a_topic() -> None:
    partitions = [{**PARTITION, "partition_index": number, "isr_nodes": [2]} for number in range(3)]
    (found,) = kafka._topic_findings({**WANTED, "partitions": 3}, partitions, {"retention.ms": "5"})
    assert found.cause == "t, partitions [0, 1, 2]: not in sync on brokers [1]"


def test_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(used: int, free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: argparse.Namespace(used=used, free=free))

    usage(80, 20)
    assert [each.ok for each in machine.disk(FakeHost(), {})] == [True]
    usage(90, 10)
    (found,) = machine.disk(FakeHost(), {})
    assert found.cause == "the file system of / is 90 % full"


def test_without_the_limits_of_the_alerts_the_checks_name_the_file_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "LIMITS_FILE", tmp_path / "limits.json")
    monkeypatch.setattr(Host, "listed", lambda _: [])
    found = {each.check: each for each in findings_of(Host())}
    for name in ("disk", "memory", "units"):
        assert found[name].cause == f"{tmp_path / 'limits.json'} is missing, which has the limits of the alerts"
        assert found[name].fix == "inv up"


def test_the_command_prints_and_tells_by_its_exit_code(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "Host", lambda: world.host)
    assert command.run(argparse.Namespace(json=True)) == 0
    assert all(each["ok"] for each in json.loads(capsys.readouterr().out)["findings"])
    world.host.closed = {8000}
    assert command.run(argparse.Namespace(json=False)) == 1
    assert "FAULT ports.api: SP-PORT-001: nobody listens at 10.0.0.1:8000" in capsys.readouterr().out
