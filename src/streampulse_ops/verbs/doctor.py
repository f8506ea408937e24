"""``inv doctor``: read-only checks, each finding with its cause and its fix.

Add a check to CHECKS when the control machine can see the fault, or to the hosts' own ``streampulse check``.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from streampulse.core import http
from streampulse.core.errors import OperatorError, one_line
from streampulse.host.slo.report import Firing
from streampulse_ops import paths, services
from streampulse_ops.environments.environment import Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import links, monitoring
from streampulse_ops.hosts.command import COMMAND, NOT_FOUND, with_environment
from streampulse_ops.hosts.ssh import Remote
from streampulse_ops.monitoring import rules
from streampulse_ops.verbs import status
from streampulse_ops.verbs.report import named

API_SECONDS = 5.0
LOW_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Finding:
    """The result of one check; a fault has its cause and the command that fixes it."""

    check: str
    where: str
    ok: bool
    cause: str = ""
    fix: str = ""


Check = Callable[[Session], Iterator[Finding]]


def machines_are_running(session: Session) -> Iterator[Finding]:
    """Check that every machine runs."""
    for host in session.environment.hosts:
        if session.provider.running(host):
            yield Finding("machine", host.name, ok=True)
            continue
        log = session.provider.console_log(host)
        seen = f"; its console: {log}" if log else ""
        yield Finding("machine", host.name, False, f"it is not running{seen}", f"inv up --env {session.name}")


def services_are_running(session: Session) -> Iterator[Finding]:
    """Check that every service that the inventory asks for runs."""
    for row in status.collect(session):
        if row.state in (status.DOWN, status.UNKNOWN):
            continue  # reported once, by machines_are_running or hosts_find_nothing
        if row.healthy:
            yield Finding("service", f"{row.service} on {row.host}", ok=True)
        else:
            fix = f"inv logs {row.service} --env {session.name}; inv up --env {session.name}"
            yield Finding("service", f"{row.service} on {row.host}", False, f"it is {row.state}", fix)


def hosts_find_nothing(session: Session) -> Iterator[Finding]:
    """Run the hosts' own checks: ports, topics, workers, the job's progress, tables, disks."""
    for host in session.environment.hosts:
        if session.provider.running(host) and services.on_host(host):
            try:
                yield from _ask(session, host)
            except OperatorError as error:
                # Go on with the other hosts.
                yield Finding("host", host.name, False, str(error), f"inv up --env {session.name}")


def clocks_agree(session: Session) -> Iterator[Finding]:
    """Compare the hosts' clocks with the first Kafka host's: the brokers' stamps decide which events are late."""
    ahead: dict[str, tuple[float, float]] = {}
    for host in session.environment.hosts:
        # A host that cannot be asked is a finding of the hosts' own checks.
        with contextlib.suppress(OperatorError):
            if session.provider.running(host) and services.on_host(host):
                ahead[host.name] = _ahead(session, host)
    broker = next((host.name for host in session.environment.in_group("kafka") if host.name in ahead), None)
    if broker is None:
        return
    limit = float(rules.values().limits.clock_offset.value)
    for name, (least, most) in ahead.items():
        apart = max(0.0, least - ahead[broker][1], ahead[broker][0] - most)
        if apart > limit:
            cause = f"its clock and that of the Kafka host {broker} are {apart:.1f} s apart"
            yield Finding("clock", name, False, cause, f"inv ssh {name} --env {session.name}, then timedatectl")
        elif name != broker:
            yield Finding("clock", f"{name}: within {apart:.1f} s of {broker}", ok=True)


def _ahead(session: Session, host: Host) -> tuple[float, float]:
    """Return between which limits a host's clock is ahead of this machine's, in seconds.

    :raises OperatorError: the host cannot be reached.
    """
    with Remote(session.environment, host) as remote:
        remote.run(["true"])  # opens the connection, whose time does not belong to the measurement
        began = time.time()
        _, printed, _ = remote.run(["date", "+%s.%N"])
        ended = time.time()
    return float(printed) - ended, float(printed) - began


def _ask(session: Session, host: Host) -> Iterator[Finding]:
    with Remote(session.environment, host) as remote:
        code, output, errors = remote.run([COMMAND, "check", "--json"], timeout=60)
    if code == NOT_FOUND and not services.base_on_host(host):
        return  # a host that only monitors is set up by --full
    try:
        for item in json.loads(output)["findings"]:
            where = f"{host.name}: {item['seen']}" if item["ok"] and item["seen"] else host.name
            fix = with_environment(str(item["fix"]), session.name)
            yield Finding(str(item["check"]), where, bool(item["ok"]), str(item["cause"]), fix)
    except (ValueError, KeyError, TypeError):
        said = (errors.strip() or output.strip() or f"exit code {code}").splitlines()[-1]
        yield Finding("check", host.name, False, f"the host's own check failed: {said}", f"inv up --env {session.name}")


def api_answers(session: Session) -> Iterator[Finding]:
    """Check that the API answers this machine."""
    if not session.environment.in_group("api") or links.only_there(session.environment):
        return  # the check of its own host asks it
    if not session.provider.running(session.environment.in_group("api")[0]):
        return  # reported once, by machines_are_running
    address = links.api(session.environment)
    why = _why_not_healthy(f"{address}health")
    yield Finding("api", address, not why, why, f"inv logs api --env {session.name}" if why else "")


def _why_not_healthy(url: str) -> str:
    """Return why an API is not healthy as seen from this machine; empty when it is healthy."""
    try:
        # The edge's certificate is for a name, and this is its address. The question has no secret.
        answer = http.get(url, seconds=API_SECONDS, verified=False)
    except (http.NoAnswer, ValueError) as error:
        return (
            f"no answer ({one_line(error)}). When `inv status` says that it runs, a firewall is between here and there"
        )
    try:
        document = answer.json()
        if answer.is_success:
            return "" if document.get("ok") is True else "it says that it is not well"
        if answer.status_code == httpx.codes.FORBIDDEN:
            # The API shows its health to private networks only; the check on its own host asks it, too.
            return ""
        said = str(document["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        said = answer.reason_phrase
    return f"it answers {answer.status_code}: {said}"


def monitoring_is_content(session: Session) -> Iterator[Finding]:
    """Check that Prometheus reaches every target and that no alert fires, where monitoring has been set up."""
    if not session.environment.in_group("monitoring"):
        return
    host = session.environment.in_group("monitoring")[0]
    if not session.provider.running(host):
        return  # reported once, by machines_are_running
    name = session.name
    try:
        report = monitoring.ask(session)
    except OperatorError as error:
        yield Finding("monitoring", host.name, False, str(error), f"inv up --full --env {name}")
        return
    if report is None:
        return
    for problem in report.problems:
        # Every message to people ends with the command.
        cause, _, fix = problem.partition(": inv ")
        fix = f"inv {fix}" if fix else "inv up --full"
        yield Finding("monitoring", host.name, False, cause, with_environment(fix, name))
    for target in report.targets:
        where = f"{target.job} on {target.host}"
        if target.up:
            yield Finding("target", where, ok=True)
        else:
            cause = f"Prometheus cannot read {target.address}: {target.error}"
            fix = f"inv logs {target.job} --env {name}; inv up --full --env {name}"
            yield Finding("target", where, False, cause, fix)
    for alert in report.alerts:
        if alert.silenced or alert.inhibited:
            # A silenced alert is known already; the cause of an inhibited one is among the findings.
            why = "silenced" if alert.silenced else "follows from another one"
            yield Finding("alert", f"{named(alert)}: {why}", ok=True)
        else:
            yield Finding("alert", named(alert), False, alert.summary or alert.severity, _first_look(alert, name))


def _first_look(alert: Firing, name: str) -> str:
    """Return the command to begin with when an alert fires, and its runbook."""
    known = {service.name for service in services.all_services()}
    if alert.service in known:
        look = f"inv logs {alert.service} --env {name}"
    elif alert.host:
        look = f"inv ssh {alert.host} --env {name}"
    else:
        look = f"inv status --full --env {name}"
    runbook = alert.runbook.rpartition("/")[2].removesuffix(".html")
    # The page of this checkout where it has one, else its address.
    page = f"docs/runbooks/{runbook}.md"
    page = page if runbook and (paths.repository() / page).is_file() else alert.runbook
    return f"{look}; runbook: {page}" if page else look


def this_machine_has_room(session: Session) -> Iterator[Finding]:
    """Check the free space of the file systems that the tasks write to on this machine."""
    for folder in (session.environment.state, paths.cache_home()):
        place = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(place).free
        ok = free >= LOW_BYTES
        cause = "" if ok else f"{free / 2**30:.1f} GiB free: make room"
        yield Finding("space", str(place), ok, cause, "" if ok else f"du -xh --max-depth=2 {place} | sort -h")


def secrets_are_private(session: Session) -> Iterator[Finding]:
    """Check that only their owner can read keys and secrets."""
    for name in ("secrets.json", "id_ed25519"):
        file = Path(session.environment.state / name)
        if file.exists():
            ok = file.stat().st_mode & 0o077 == 0
            yield Finding(
                "secrets", str(file), ok, "" if ok else "others can read it", "" if ok else f"chmod 600 {file}"
            )


CHECKS: tuple[Check, ...] = (
    machines_are_running,
    services_are_running,
    hosts_find_nothing,
    clocks_agree,
    api_answers,
    monitoring_is_content,
    this_machine_has_room,
    secrets_are_private,
)


def examine(session: Session) -> list[Finding]:
    """Run every check. A check that fails to run is a finding too."""
    findings: list[Finding] = []
    again = f"inv up --env {session.name}"
    for check in CHECKS:
        try:
            findings += check(session)
        except OperatorError as error:
            findings.append(Finding(check.__name__.replace("_", " "), session.name, False, str(error), again))
    return findings


def show(session: Session, findings: list[Finding], as_json: bool) -> str:
    """Print the findings and return the closing words.

    :raises OperatorError: there is a fault.
    """
    faults = [finding for finding in findings if not finding.ok]
    if as_json:
        session.screen.console.print_json(json.dumps([asdict(finding) for finding in findings]))
    else:
        for fault in faults:
            session.screen.line(f"  {fault.check}  {fault.where}: {fault.cause}\n      fix: {fault.fix}")
    if faults:
        raise OperatorError(f"{len(faults)} of {len(findings)} checks found a fault")
    return f"{len(findings)} checks, no fault"
