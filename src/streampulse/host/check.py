"""``streampulse check``: the part of ``inv doctor`` that runs on one host. It changes nothing.

Each check is a function in a registry, with the services that it concerns. It runs only where the unit of one of them
is installed, so that the same command is right on every host. It yields findings: an observation, or a fault with its
cause and the command that fixes it. To add a check, register a function with :func:`check`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streampulse.core import http
from streampulse.core.errors import OperatorError, SettingsError, one_line
from streampulse.core.settings import ApiSettings, JobSettings, KafkaSettings, PostgresSettings, load
from streampulse.events import ALLOWED_FUTURE_US

#: The services that the inventory assigns to this host, written by the base role.
SERVICES_FILE: Final = Path("/etc/streampulse/services.json")
#: The roles install units and drop-ins here. A unit file elsewhere may come from a package that the roles do not
#: manage.
OURS: Final = "/etc/systemd/system/"
TOPICS_FILE: Final = Path("/etc/kafka/topics.json")
#: The alerts' limits, written by the base role from prometheus/values.yml. Inside the wheel a change of them would
#: restart the services.
LIMITS_FILE: Final = Path("/etc/streampulse/limits.json")
#: The job commits every second or so while there is anything to read.
JOB_SILENT_SECONDS: Final = 30
#: A transaction that is open for longer holds back its partitions noticeably.
LONG_TRANSACTION_SECONDS: Final = 10
_ANSWER_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Finding:
    """One finding. ``seen`` is the observation; a fault has a cause and a fix, which is a command."""

    check: str
    ok: bool
    seen: str = ""
    cause: str = ""
    fix: str = ""


class Host:
    """Access to the system for the checks; tests substitute it."""

    def command(self, *words: str) -> str:
        """Return the output of a command.

        :raises OSError: the command is missing or times out.
        """
        try:
            done = subprocess.run(  # noqa: S603 - fixed words, no shell
                words, capture_output=True, text=True, timeout=10, check=False, env={**os.environ, "LC_ALL": "C"}
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"{words[0]} does not answer") from error
        return done.stdout

    def properties(self, unit: str) -> dict[str, str]:
        """Return systemd's properties of a unit."""
        names = "Id,LoadState,ActiveState,SubState,Result,NRestarts,ActiveEnterTimestampMonotonic,UnitFileState"
        names += ",FragmentPath,DropInPaths"
        lines = self.command("systemctl", "show", unit, f"--property={names}").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def listed(self) -> list[dict[str, Any]]:
        """Return the services of this host: name, unit, full, listens (pairs of address and port) and data.

        :raises OperatorError: the file is missing.
        """
        try:
            return list(json.loads(SERVICES_FILE.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise OperatorError(f"{SERVICES_FILE} is missing, which lists the services of this host") from None

    def services(self) -> dict[str, str]:
        """Return the services of this host whose unit is installed, with the unit."""
        found = {}
        for each in self.listed():
            seen = self.properties(each["unit"])
            ours = OURS in seen.get("FragmentPath", "") + seen.get("DropInPaths", "")
            if ours if each["full"] else seen.get("LoadState") == "loaded":
                found[each["name"]] = each["unit"]
        return found

    def limits(self) -> dict[str, float]:
        """Return the limits of the alerts.

        They are disk_full and memory_low (ratios), unit_flapping_seconds and records_lost (seconds) and unit_flapping
        (restarts).

        :raises OperatorError: the file is missing.
        """
        try:
            return dict(json.loads(LIMITS_FILE.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise OperatorError(f"{LIMITS_FILE} is missing, which has the limits of the alerts") from None

    def uptime(self) -> float:
        """Return the seconds since boot, by the clock of systemd's monotonic stamps."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)

    def fetch(self, url: str) -> tuple[int, Any]:
        """Return the status and the JSON body of an HTTP response.

        :raises OSError: nothing answers.
        :raises ValueError: the response is not JSON.
        """
        answer = http.get(url, seconds=_ANSWER_SECONDS)
        return answer.status_code, answer.json()

    def connects(self, host: str, port: int) -> None:
        """Connect to a port and close the connection.

        :raises OSError: no process listens there.
        """
        socket.create_connection((host, port), timeout=_ANSWER_SECONDS).close()

    def memory(self) -> dict[str, int]:
        """Return /proc/meminfo, in KiB."""
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return {line.split(":")[0]: int(line.split()[1]) for line in lines if len(line.split()) > 1}


Check = Callable[[Host, dict[str, str]], Iterator[Finding]]
#: Name of the check, its services (none: every host), and its function.
CHECKS: list[tuple[str, frozenset[str], Check]] = []


def check(name: str, *services: str) -> Callable[[Check], Check]:
    """Register a check.

    :param name: the name of its findings.
    :param services: it runs where the unit of one of them is installed; without any, on every host.
    """

    def register(function: Check) -> Check:
        CHECKS.append((name, frozenset(services), function))
        return function

    return register


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse check``."""
    parser.add_argument("--json", action="store_true", help="print every finding as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the checks of this host, print the findings, and return 1 if there is a fault."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    findings = findings_of(Host())
    if arguments.json:
        document = {"host": socket.gethostname(), "findings": [dataclasses.asdict(each) for each in findings]}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        for each in findings:
            said = each.seen if each.ok else f"{each.cause}. Fix: {each.fix}"
            sys.stdout.write(f"{'ok   ' if each.ok else 'FAULT'} {each.check}: {said}\n")
    return 0 if all(each.ok for each in findings) else 1


def findings_of(host: Host) -> list[Finding]:
    """Run every check that applies to this host and return the findings."""
    import psycopg2
    from kafka.errors import KafkaError

    try:
        services = host.services()
    except (OSError, OperatorError) as error:
        return [_unknown_services(error)]
    findings: list[Finding] = []
    for name, about, function in CHECKS:
        if about and not about & services.keys():
            continue
        try:
            findings.extend(function(host, services))
        except SettingsError as error:
            findings.append(_fault(name, f"a setting is missing or wrong ({error})", "inv up"))
        except OperatorError as error:
            findings.append(_fault(name, str(error), "inv up"))
        except KafkaError as error:
            findings.append(_fault(name, f"Kafka does not answer ({one_line(error)})", "inv logs kafka"))
        except OSError as error:
            findings.append(_fault(name, f"no answer ({one_line(error)})", f"inv logs {_service_of(name)}"))
        except psycopg2.Error as error:
            findings.append(_fault(name, f"PostgreSQL refuses ({one_line(error)})", "inv logs postgres"))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            findings.append(
                _fault(name, f"an answer that is not understood ({one_line(error)})", f"inv logs {_service_of(name)}")
            )
    return findings


def _unknown_services(error: OSError | OperatorError) -> Finding:
    if isinstance(error, OperatorError):
        return _fault("units", str(error), "inv up")
    return _fault("units", f"systemd does not answer ({error})", "systemctl status")


def _fault(name: str, cause: str, fix: str) -> Finding:
    return Finding(name, ok=False, cause=cause, fix=fix)


def _fine(name: str, seen: str) -> Finding:
    return Finding(name, ok=True, seen=seen)


def _service_of(name: str) -> str:
    """Return the service whose log explains a check that could not run."""
    first = name.split(".")[0]
    return {"spark": "spark-master"}.get(first, first)


# The host -------------------------------------------------------------------------------------------------------------


@check("disk")
def disk(host: Host, services: dict[str, str]) -> Iterator[Finding]:
    """Check the free space and inodes of every file system that a service writes to."""
    paths = ["/", *(each["data"] for each in host.listed() if each["data"] and each["name"] in services)]
    limit = 100 * host.limits()["disk_full"]
    seen: set[int] = set()
    for path in paths:
        if not Path(path).is_dir():
            continue
        device = os.stat(path).st_dev  # noqa: PTH116 - beside statvfs, which has no Path method
        if device in seen:
            continue
        seen.add(device)
        usage = shutil.disk_usage(path)
        percent = 100 * usage.used / (usage.used + usage.free) if usage.used + usage.free else 0.0
        inodes = os.statvfs(path)
        inode_percent = 100 * (1 - inodes.f_favail / inodes.f_files) if inodes.f_files else 0.0
        fix = f"du -xh --max-depth=2 {path} | sort -h | tail"
        if percent >= limit:
            yield _fault("disk", f"the file system of {path} is {percent:.0f} % full", fix)
        elif inode_percent >= limit:
            yield _fault("disk", f"the file system of {path} has used {inode_percent:.0f} % of its inodes", fix)
        else:
            yield _fine("disk", f"{path} {percent:.0f} % full, {usage.free / 2**30:.1f} GiB free")


@check("memory")
def memory(host: Host, _: dict[str, str]) -> Iterator[Finding]:
    """Check the available memory."""
    amounts = host.memory()
    total, available = amounts["MemTotal"], amounts["MemAvailable"]
    percent = 100 * available / total
    if percent < 100 * host.limits()["memory_low"]:
        yield _fault(
            "memory",
            f"only {percent:.0f} % of {total / 2**20:.1f} GiB is available",
            "ps -eo pss,rss,comm --sort=-pss | head",
        )
    else:
        yield _fine("memory", f"{available / 2**20:.1f} of {total / 2**20:.1f} GiB available")


# Units and ports ------------------------------------------------------------------------------------------------------


@check("units")
def units(host: Host, services: dict[str, str]) -> Iterator[Finding]:
    """Check that each service's unit is active and does not flap."""
    limits = host.limits()
    full = {each["name"] for each in host.listed() if each["full"]}
    for name, unit in services.items():
        seen = host.properties(unit)
        state = f"{seen.get('ActiveState')} ({seen.get('SubState')})"
        restarts = int(seen.get("NRestarts") or 0)
        since = host.uptime() - int(seen.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
        again = f"inv logs {name}; inv up{' --full' * (name in full)}"
        if seen.get("ActiveState") == "failed":
            yield _fault(f"units.{name}", f"{unit} has failed ({seen.get('Result')})", again)
        elif seen.get("ActiveState") != "active":
            yield _fault(f"units.{name}", f"{unit} is {state}", again)
        elif restarts >= limits["unit_flapping"] and since < limits["unit_flapping_seconds"]:
            yield _fault(
                f"units.{name}",
                f"{unit} has come back {restarts} times, the last time {since:.0f} s ago",
                f"inv logs {name}",
            )
        else:
            yield _fine(f"units.{name}", f"{unit} {state}" + (f", restarted {restarts} times" if restarts else ""))


def _reachable(host: str) -> str:
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - nothing is bound here


@check("ports")
def ports(host: Host, services: dict[str, str]) -> Iterator[Finding]:
    """Connect to every port that this host's services should listen on."""
    listens = [(each["name"], *pair) for each in host.listed() if each["name"] in services for pair in each["listens"]]
    for name, address, port in listens:
        try:
            host.connects(address, port)
        except OSError as error:
            yield _fault(f"ports.{name}", f"nobody listens at {address}:{port} ({one_line(error)})", f"inv logs {name}")
        else:
            yield _fine(f"ports.{name}", f"{address}:{port}")


# Kafka ----------------------------------------------------------------------------------------------------------------


@check("kafka.topics", "kafka")
def topics(_: Host, __: dict[str, str]) -> Iterator[Finding]:
    """Compare the topics with the deployment's settings."""
    from kafka import KafkaAdminClient
    from kafka.admin import ConfigResource, ConfigResourceType

    settings = load(KafkaSettings)
    if not TOPICS_FILE.is_file():
        raise OperatorError(f"{TOPICS_FILE} is missing, which says what the topics should be")
    wanted = json.loads(TOPICS_FILE.read_text(encoding="utf-8"))["topics"]
    admin = KafkaAdminClient(**settings.client_arguments("streampulse-check"), bootstrap_timeout_ms=5_000)
    try:
        known = {each["name"]: each for each in admin.describe_topics() if not each["error_code"]}
        present = [each["name"] for each in wanted if each["name"] in known]
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in present]
        found = admin.describe_configs(resources, config_filter="all")["topic"] if resources else {}
    finally:
        admin.close()
    for topic in wanted:
        name = topic["name"]
        if name not in known:
            yield _fault("kafka.topics", f"there is no topic {name}", "inv up")
            continue
        yield from _topic_findings(topic, known[name]["partitions"], {k: v["value"] for k, v in found[name].items()})


@check("kafka.transactions", "kafka")
def transactions(_: Host, __: dict[str, str]) -> Iterator[Finding]:
    """Check whether a transaction holds back readers of the events: they wait for its end."""
    from streampulse.core import kafka

    with kafka.Topic(load(KafkaSettings), "streampulse-check", _ANSWER_SECONDS) as topic:
        found = topic.transactions(LONG_TRANSACTION_SECONDS)
    for each in found:
        yield _fault(
            "kafka.transactions",
            f"partitions {', '.join(map(str, each.partitions))} of {topic.name} wait for the open transaction of the"
            f" producer {each.producer}, which the broker aborts after {each.timeout_seconds:.0f} s",
            "inv logs kafka",
        )
    if not found:
        yield _fine("kafka.transactions", f"none is open for more than {LONG_TRANSACTION_SECONDS} s")


def _topic_findings(
    wanted: dict[str, Any], partitions: list[dict[str, Any]], settings: dict[str, Any]
) -> Iterator[Finding]:
    name = wanted["name"]
    faults = []
    if len(partitions) != wanted["partitions"]:
        faults.append(
            _fault(
                "kafka.topics",
                f"{name} has {len(partitions)} partitions, {wanted['partitions']} are wanted, and they are never "
                "changed in place",
                "inv reset",
            )
        )
    for each in partitions:
        missing = set(each["replica_nodes"]) - set(each["isr_nodes"])
        if each["leader_id"] < 0:
            cause = f"partition {each['partition_index']} of {name} has no leader"
            faults.append(_fault("kafka.topics", cause, "inv logs kafka"))
        elif missing:
            cause = f"partition {each['partition_index']} of {name} is not in sync on brokers {sorted(missing)}"
            faults.append(_fault("kafka.topics", cause, "inv logs kafka"))
    for setting, value in wanted["settings"].items():
        if str(settings.get(setting)) != str(value):
            faults.append(
                _fault("kafka.topics", f"{name} has {setting} {settings.get(setting)} instead of {value}", "inv up")
            )
    yield from faults or [_fine("kafka.topics", f"{name}, {len(partitions)} partitions")]


# Spark ----------------------------------------------------------------------------------------------------------------


@check("spark.master", "spark-master")
def spark(host: Host, services: dict[str, str]) -> Iterator[Finding]:
    """Check the master's workers and the job's application."""
    address = os.environ.get("STREAMPULSE_SPARK_MASTER_UI")
    if not address:
        raise OperatorError("STREAMPULSE_SPARK_MASTER_UI is not set")
    _, state = host.fetch(f"{address}/json/")
    if state.get("status") != "ALIVE":
        yield _fault("spark.master", f"the master is {state.get('status')}", "inv logs spark-master")
        return
    workers = state.get("workers", [])
    alive = [each for each in workers if each.get("state") == "ALIVE"]
    # The master lists a replaced worker as dead for a while. Dead workers beside alive ones are no fault.
    if not alive:
        yield _fault("spark.workers", f"no worker is alive, {len(workers)} are known", "inv logs spark-worker")
    else:
        yield _fine("spark.workers", f"{len(alive)} alive, {sum(each.get('cores', 0) for each in alive)} cores")
    if "job" not in services:
        return
    running = [each for each in state.get("activeapps", []) if each.get("state") == "RUNNING"]
    if len(running) == 1:
        yield _fine("spark.job", f"{running[0].get('id')} running on {running[0].get('cores')} cores")
    elif running:
        names = ", ".join(str(each.get("id")) for each in running)
        yield _fault("spark.job", f"{len(running)} applications are running ({names})", "inv logs job")
    else:
        waiting = ", ".join(f"{each.get('id')} is {each.get('state')}" for each in state.get("activeapps", []))
        yield _fault("spark.job", f"no application is running{f' ({waiting})' if waiting else ''}", "inv logs job")


# PostgreSQL and the job's progress ------------------------------------------------------------------------------------


def _query(statement: str) -> list[tuple[Any, ...]]:
    from streampulse.core import postgres

    return postgres.query(load(PostgresSettings), "streampulse-check", statement, statement_seconds=_ANSWER_SECONDS)


@check("postgres.schema", "job", "api")
def schema(_: Host, __: dict[str, str]) -> Iterator[Finding]:
    """Compare the database's migrations with those of this release."""
    from streampulse.host.migrate import sql_directory

    ours = sorted(path.stem for path in sql_directory().glob("*.sql"))
    ((exists,),) = _query("SELECT to_regclass('_yoyo_migration') IS NOT NULL")
    theirs = sorted(row[0] for row in _query("SELECT migration_id FROM _yoyo_migration")) if exists else []
    missing = [each for each in ours if each not in theirs]
    newer = [each for each in theirs if each not in ours]
    if missing:
        yield _fault("postgres.schema", f"the database lacks {', '.join(missing)}", "inv up")
    elif newer:
        yield _fault("postgres.schema", f"the database is of a newer release ({', '.join(newer)})", "git pull; inv up")
    else:
        yield _fine("postgres.schema", f"at {ours[-1].split('.')[0].lstrip('0') if ours else 'nothing'}")


@check("job.progress", "job")
def progress(host: Host, services: dict[str, str]) -> Iterator[Finding]:
    """Check that the job commits while events wait."""
    newest = _query(
        "SELECT offsets, extract(epoch FROM now() - committed_at)::float8 FROM batch_ledger ORDER BY seq DESC LIMIT 1"
    )
    offsets, age = newest[0] if newest else ({}, None)
    lag = sum(max(end - max(int(offsets.get(str(number), 0)), start), 0) for number, (start, end) in _bounds().items())
    running = host.uptime() - int(host.properties(services["job"]).get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    silent = running if age is None else min(age, running)
    if lag and silent > JOB_SILENT_SECONDS:
        last = "has never committed a batch" if age is None else f"committed its newest batch {age:.0f} s ago"
        yield _fault("job.progress", f"{lag:,} records wait, and the job {last}", "inv logs job")
    elif age is None:
        yield _fine("job.progress", "nothing to read yet")
    else:
        yield _fine("job.progress", f"newest batch {age:.0f} s ago, {lag:,} records behind")


@check("job.lost", "job")
def lost(host: Host, _: dict[str, str]) -> Iterator[Finding]:
    """Check whether Kafka lost records a short while ago."""
    said = {"lost": "were lost after they were counted", "unread": "were removed before the job read them"}
    yield from _spans(host, "job.lost", "lost_spans", "next_offset - 1, kind", "noted_at", said, "inv verify")


@check("job.excluded", "job")
def excluded(host: Host, _: dict[str, str]) -> Iterator[Finding]:
    """Check whether records were excluded a short while ago."""
    said = {"invalid": "do not count: they cannot be read", "future": "do not count: they are ahead of the clocks"}
    table = "excluded_records WHERE NOT pending"
    fix = "inv peek stream.events.dlq"
    yield from _spans(host, "job.excluded", table, "last_offset, reason", "excluded_at", said, fix)


def _spans(
    host: Host, name: str, table: str, columns: str, noted: str, said: dict[str, str], fix: str
) -> Iterator[Finding]:
    """Find the spans of offsets that a table has since a short while.

    :param columns: the last offset, and the word that ``said`` has a sentence for.
    """
    rows = _query(
        f"SELECT partition, first_offset, {columns}, extract(epoch FROM now() - {noted})::float8"  # noqa: S608 - constants
        f" FROM {table} ORDER BY {noted} DESC LIMIT 20"
    )
    recent = [row for row in rows if row[-1] < host.limits()["records_lost"]]
    for partition, first, last, word, _ in recent:
        yield _fault(name, f"records {first} to {last} of partition {partition} {said[word]}", fix)
    if not recent:
        yield _fine(name, "none in the last hour")


@check("job.clocks", "job")
def clocks(_: Host, __: dict[str, str]) -> Iterator[Finding]:
    """Check whether the event clock is ahead, and whether a partition waits because clocks differ."""
    found = list(_query("SELECT extract(epoch FROM clock - now())::float8 FROM event_clock"))
    ahead = found[0][0] if found and found[0][0] is not None else 0.0
    if ahead > ALLOWED_FUTURE_US / 1_000_000:
        yield _fault("job.clocks", f"the event clock is {ahead:.0f} s ahead of PostgreSQL's", "timedatectl")
    waiting = _waiting()
    for partition, clock, offset in waiting:
        cause = f"partition {partition} waits at offset {offset}: {clock} clock differs or does not answer"
        yield _fault("job.clocks", cause, "timedatectl")
    if ahead <= ALLOWED_FUTURE_US / 1_000_000 and not waiting:
        yield _fine("job.clocks", "no event is ahead of the clocks")


def _waiting() -> list[tuple[str, str, int]]:
    """Return partition, clock and offset of each partition that waits, as the job's scrape endpoint has them."""
    from prometheus_client.parser import text_string_to_metric_families

    settings = load(JobSettings)
    url = f"http://{_reachable(settings.metrics_host)}:{settings.metrics_port}/metrics"
    try:
        text = http.get(url, seconds=_ANSWER_SECONDS).text
    except http.NoAnswer:
        # The check of the ports names a job that does not answer.
        return []
    return [
        (sample.labels["partition"], sample.labels["clock"], int(sample.value))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "streampulse_job_waiting_partition_offset"
    ]


def _bounds() -> dict[int, tuple[int, int]]:
    """Return the first and the end offset of each partition of the raw topic."""
    from streampulse.core import kafka

    with kafka.Topic(load(KafkaSettings), "streampulse-check", _ANSWER_SECONDS) as topic:
        log = topic.log()
    return {number: (start, log.ends[number]) for number, start in log.starts.items()}


# API ------------------------------------------------------------------------------------------------------------------


@check("api.health", "api")
def api(host: Host, _: dict[str, str]) -> Iterator[Finding]:
    """Check the API's health."""
    settings = load(ApiSettings)
    url = f"http://{_reachable(settings.host)}:{settings.port}/health"
    status, answer = host.fetch(url)
    if status == 200 and answer.get("ok") is True:
        yield _fine("api.health", url)
    else:
        why = answer.get("error") if isinstance(answer, dict) else None
        yield _fault("api.health", f"{url} answers {status}{f' ({why})' if why else ''}", "inv logs api")
