"""``inv doctor``: read-only looks, each fault with its code, its cause and its fix.

Add a look to CHECKS when the control machine can see the fault, or to the hosts' own ``streampulse check``. Every code
is in ``monitoring/findings.yml``.
"""

import json
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import httpx

from streampulse.core import http
from streampulse.core.errors import IncompleteError, OperatorError, one_line
from streampulse.host.slo.report import Firing
from streampulse_ops import paths, services
from streampulse_ops.cli.console import Screen
from streampulse_ops.environments.environment import Host
from streampulse_ops.environments.session import Session
from streampulse_ops.hosts import links, monitoring
from streampulse_ops.hosts.command import COMMAND, NOT_FOUND, with_environment
from streampulse_ops.hosts.reach import NoAnswerError
from streampulse_ops.hosts.ssh import Remote
from streampulse_ops.monitoring import findings as catalogue
from streampulse_ops.monitoring import rules
from streampulse_ops.monitoring.findings import Finding
from streampulse_ops.releases import history
from streampulse_ops.verbs import mutes, status
from streampulse_ops.verbs.alert import NAME as TEST
from streampulse_ops.verbs.report import named

API_SECONDS = 5.0
# A host's looks run at the same time, and each gives up within a few seconds.
HOST_SECONDS = 30.0
LOW_BYTES = 2 * 2**30


Check = Callable[[Session], Iterator[Finding]]
_Answer = TypeVar("_Answer")


def fault(code: str, check: str, where: str, cause: str, fix: str) -> Finding:
    """Return a fault of a look."""
    return Finding(check, where, ok=False, cause=cause, fix=fix, code=code)


def fault_from(code: str, check: str, where: str, error: OperatorError | str) -> Finding:
    """Return a fault from a message of the form ``cause: fix``."""
    cause, _, fix = str(error).rpartition(": ")
    return fault(code, check, where, cause or fix, fix)


def running(session: Session, host: Host) -> bool:
    """Return whether a host is up and can be used; if not, machines_are_running reports it, once."""
    try:
        return session.provider.running(host)
    except OperatorError:
        return False


def ask_hosts(session: Session, question: Callable[[Session, Host], _Answer]) -> list[tuple[Host, _Answer]]:
    """Ask every running host that has a service, all at the same time, and return the answers in the hosts' order."""
    hosts = [each for each in session.environment.hosts if services.on_host(each) and running(session, each)]
    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        return list(zip(hosts, pool.map(lambda host: question(session, host), hosts), strict=True))


def machines_are_running(session: Session) -> Iterator[Finding]:
    """Check that every machine runs, and that an existing host lets this machine in."""
    for host in session.environment.hosts:
        try:
            up = session.provider.running(host)
            if not up and not session.ours:
                up = not session.provider.start(host)  # which only looks, and says why there is no answer
        except NoAnswerError as error:
            yield fault_from("SP-HOST-001", "machine", host.name, error)
            continue
        except OperatorError as error:
            yield fault_from("SP-CHECK-004", "machine", host.name, error)
            continue
        if up:
            yield Finding("machine", host.name, ok=True)
            continue
        log = session.provider.console_log(host)
        seen = f"; its console: {log}" if log else ""
        yield fault("SP-HOST-001", "machine", host.name, f"it is not running{seen}", f"inv up --env {session.name}")


def services_are_installed(session: Session) -> Iterator[Finding]:
    """Check that every service is installed that the inventory asks for, in the same version on all hosts."""
    versions: dict[str, dict[str, str]] = defaultdict(dict)
    for row in status.collect(session):
        if row.state == status.DOWN or row.why:
            continue  # reported once, by machines_are_running or hosts_find_nothing
        if row.state == "not installed":
            again = f"inv up --env {session.name}"
            yield fault("SP-UNIT-004", "service", f"{row.service} on {row.host}", "it is not installed", again)
            continue
        # The hosts' own looks say whether the unit runs.
        yield Finding("service", f"{row.service} on {row.host}: {row.version or 'installed'}", ok=True)
        # A package's version follows from the host's distribution.
        if row.version and row.entry.version.startswith("/"):
            versions[row.entry.name][row.host] = row.version
    for service, found in versions.items():
        if len(set(found.values())) > 1:
            cause = "hosts have different versions: " + ", ".join(f"{host} {each}" for host, each in found.items())
            yield fault("SP-VERSION-001", "version", service, cause, f"inv up --env {session.name}")


def hosts_find_nothing(session: Session) -> Iterator[Finding]:
    """Run the hosts' own looks: disks, units, ports, topics, workers, tables, the job's progress.

    What several hosts say in the same words, as all brokers say of a topic, is one fault.
    """
    told: dict[Finding, list[str]] = defaultdict(list)
    for _, findings in ask_hosts(session, _ask):
        for finding in findings:
            if finding.ok:
                yield finding
            else:
                told[replace(finding, where="")].append(finding.where)
    for finding, hosts in told.items():
        yield replace(finding, where=", ".join(hosts))


def clocks_agree(session: Session) -> Iterator[Finding]:
    """Compare the hosts' clocks with the first Kafka host's: the brokers' stamps decide which events are late."""
    ahead = {host.name: each for host, each in ask_hosts(session, _ahead) if each is not None}
    broker = next((host.name for host in session.environment.in_group("kafka") if host.name in ahead), None)
    if broker is None:
        return
    limit = float(rules.values().limits.clock_offset.value)
    for name, (least, most) in ahead.items():
        apart = max(0.0, least - ahead[broker][1], ahead[broker][0] - most)
        if apart > limit:
            cause = f"its clock and that of the Kafka host {broker} are {apart:.1f} s apart"
            yield fault("SP-CLOCK-001", "clock", name, cause, f"inv ssh {name} --env {session.name}, then timedatectl")
        elif name != broker:
            yield Finding("clock", f"{name}: within {apart:.1f} s of {broker}", ok=True)


def _ahead(session: Session, host: Host) -> tuple[float, float] | None:
    """Return between which limits a host's clock is ahead of this machine's, in seconds.

    A host that cannot be asked has None: the hosts' own looks report it.
    """
    try:
        with Remote(session.environment, host) as remote:
            remote.run(["true"])  # opens the connection, whose time does not belong to the measurement
            began = time.time()
            _, printed, _ = remote.run(["date", "+%s.%N"])
            ended = time.time()
    except OperatorError:
        return None
    return float(printed) - ended, float(printed) - began


def _ask(session: Session, host: Host) -> list[Finding]:
    again = f"inv up --env {session.name}"
    try:
        with Remote(session.environment, host) as remote:
            code, output, errors = remote.run([COMMAND, "check", "--json"], timeout=HOST_SECONDS)
    except OperatorError as error:
        # Go on with the other hosts.
        return [fault("SP-CHECK-004", "host", host.name, str(error), again)]
    if code == NOT_FOUND and not services.base_on_host(host):
        return []  # a host that only monitors is set up by --full
    try:
        return [
            Finding(
                check=str(item["check"]),
                where=f"{host.name}: {item['seen']}" if item["ok"] and item["seen"] else host.name,
                ok=bool(item["ok"]),
                cause=str(item["cause"]),
                fix=with_environment(str(item["fix"]), session.name),
                code=str(item["code"]),
            )
            for item in json.loads(output)["findings"]
        ]
    except (ValueError, KeyError, TypeError):
        said = (errors.strip() or output.strip() or f"exit code {code}").splitlines()[-1]
        # A release from before the codes answers without them.
        return [fault("SP-CHECK-005", "check", host.name, f"the host's own check failed: {said}", again)]


def api_answers(session: Session) -> Iterator[Finding]:
    """Check that the API answers this machine."""
    if not session.environment.in_group("api") or links.only_there(session.environment):
        return  # the check of its own host asks it
    if not running(session, session.environment.in_group("api")[0]):
        return
    address = links.address(session.environment, "api")
    why = _why_not_healthy(f"{address}health")
    if why:
        yield fault("SP-API-002", "api", address, why, f"inv logs api --env {session.name}")
    else:
        yield Finding("api", address, ok=True)


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
    if not running(session, host):
        return
    name = session.name
    try:
        report = monitoring.ask(session)
    except OperatorError as error:
        yield fault("SP-MONITOR-001", "monitoring", host.name, str(error), f"inv up --full --env {name}")
        return
    if report is None:
        return
    for problem in report.problems:
        # Every message to people ends with the command.
        cause, _, fix = problem.partition(": inv ")
        fix = f"inv {fix}" if fix else "inv up --full"
        yield fault("SP-MONITOR-001", "monitoring", host.name, cause, with_environment(fix, name))
    for target in report.targets:
        where = f"{target.job} on {target.host}"
        if target.up:
            yield Finding("target", where, ok=True)
        else:
            cause = f"Prometheus cannot read {target.address}: {target.error}"
            fix = f"inv logs {target.job} --env {name}; inv up --full --env {name}"
            yield fault("SP-TARGET-001", "target", where, cause, fix)
    for alert in report.alerts:
        if alert.silenced or alert.inhibited or alert.name == TEST:
            # A silenced alert is known already; the cause of an inhibited one is among the findings.
            why = "silenced" if alert.silenced else "follows from another one" if alert.inhibited else "sent as a test"
            yield Finding("alert", f"{named(alert)}: {why}", ok=True)
        else:
            yield Finding(
                "alert",
                named(alert),
                ok=False,
                cause=alert.summary or alert.severity,
                fix=_first_look(alert, name),
                code="SP-ALERT-001",
                severity="page" if alert.severity == "page" else "ticket",
                runbook=_page(alert),
            )


def _first_look(alert: Firing, name: str) -> str:
    """Return the command to begin with when an alert fires."""
    if alert.service in {service.name for service in services.all_services()}:
        return f"inv logs {alert.service} --env {name}"
    if alert.host:
        return f"inv ssh {alert.host} --env {name}"
    return f"inv status --full --env {name}"


def _page(alert: Firing) -> str:
    """Return an alert's runbook: the page of this checkout where it has one, else its address."""
    runbook = alert.runbook.rpartition("/")[2].removesuffix(".html")
    page = f"docs/runbooks/{runbook}.md"
    return page if runbook and (paths.repository() / page).is_file() else alert.runbook


def this_machine_has_room(session: Session) -> Iterator[Finding]:
    """Check the free space of the file systems that the tasks write to on this machine."""
    for folder in (session.environment.state, paths.cache_home()):
        place = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(place).free
        if free >= LOW_BYTES:
            yield Finding("space", str(place), ok=True)
        else:
            fix = f"du -xh --max-depth=2 {place} | sort -h"
            yield fault("SP-CONTROL-001", "space", str(place), f"{free / 2**30:.1f} GiB free: make room", fix)


def secrets_are_private(session: Session) -> Iterator[Finding]:
    """Check that only their owner can read keys and secrets."""
    for name in ("secrets.json", "id_ed25519"):
        file = session.environment.state / name
        if not file.exists():
            continue
        if file.stat().st_mode & 0o077:
            yield fault("SP-CONTROL-002", "secrets", str(file), "others can read it", f"chmod 600 {file}")
        else:
            yield Finding("secrets", str(file), ok=True)


def the_last_deploy_ended(session: Session) -> Iterator[Finding]:
    """Check that the last deploy ended: its release is marked as good, or the release before runs again."""
    if not all(running(session, host) for host in session.environment.hosts):
        return
    try:
        seen = history.look(session)
    except OperatorError:
        return  # a host that cannot be asked is reported once, by hosts_find_nothing
    event = seen.unfinished
    if event:
        cause = f"the deploy of {event['release']} goes on or was interrupted ({event['event']} at {event['at']})"
        yield fault("SP-RELEASE-001", "release", session.name, cause, f"inv up --env {session.name}")
    elif seen.running:
        yield Finding("release", seen.running, ok=True)


CHECKS: tuple[Check, ...] = (
    machines_are_running,
    services_are_installed,
    hosts_find_nothing,
    clocks_agree,
    api_answers,
    monitoring_is_content,
    this_machine_has_room,
    secrets_are_private,
    the_last_deploy_ended,
)


def examine(session: Session) -> list[Finding]:
    """Run every look, all at the same time, and return the findings: good ones first, then causes before consequences.

    A look that fails to run is a finding too.
    """

    def run(check: Check) -> list[Finding]:
        try:
            return list(check(session))
        except OperatorError as error:
            again = f"inv up --env {session.name}"
            return [fault("SP-CHECK-006", check.__name__.replace("_", " "), session.name, str(error), again)]

    with ThreadPoolExecutor(len(CHECKS)) as pool:
        found = [finding for findings in pool.map(run, CHECKS) for finding in findings]
    return mutes.applied(session, found)


def show(screen: Screen, findings: Iterable[Finding], as_json: bool) -> str:
    """Print the findings and return the closing words.

    :raises OperatorError: there is a fault.
    :raises IncompleteError: there is no fault, but doctor could not look everywhere.
    """
    findings = catalogue.explained(list(findings))
    loud = [each for each in findings if not each.ok and not each.muted]
    muted = [each for each in findings if not each.ok and each.muted]
    if as_json:
        screen.console.print_json(catalogue.as_json(findings))
    else:
        for each in loud:
            screen.line(_lines(each))
        for each in muted:
            screen.line(f"  muted   {each.code}  {each.where}: {each.cause} ({each.muted})")
    unknown = [each for each in loud if each.severity == catalogue.UNKNOWN]
    silent = f", {len(muted)} muted" if muted else ""
    if len(loud) > len(unknown):
        raise OperatorError(f"{len(loud)} of {len(findings)} checks found a fault{silent}")
    if unknown:
        places = ", ".join(dict.fromkeys(each.where for each in unknown))
        raise IncompleteError(f"could not look at {places}: see above", f"{len(findings)} checks, no fault{silent}")
    return f"{len(findings)} checks, no fault{silent}"


def _lines(finding: Finding) -> str:
    """Return a fault as people read it."""
    lines = [
        f"  {finding.severity:<7} {finding.code}  {finding.check}  {finding.where}: {finding.cause}",
        f"      why it matters: {finding.why}",
        f"      fix: {finding.fix}",
        f"      runbook: {finding.runbook}",
    ]
    return "\n".join(line for line in lines if re.search(r"\S$", line))
