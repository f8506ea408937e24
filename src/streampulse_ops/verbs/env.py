"""``inv env``: a new environment, fresh secrets for its vault, and a check of its hosts that changes nothing."""

import ipaddress
import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from streampulse.core.errors import OperatorError
from streampulse_ops import ansible, artifacts, paths, services
from streampulse_ops.environments import environment, inventory, secrets
from streampulse_ops.environments.environment import Host
from streampulse_ops.environments.session import Session, changing
from streampulse_ops.hosts.ssh import Remote, login
from streampulse_ops.monitoring.findings import Finding
from streampulse_ops.verbs import doctor
from streampulse_ops.verbs.doctor import fault, fault_from

TEMPLATE = "staging"
#: Groups without which nothing is counted or shown.
NEEDED = ("kafka", "spark_master", "spark_worker", "postgres", "api")
#: Memory of each group's JVMs, as settings of roles.
HEAPS = {
    "kafka": (("kafka", "kafka_heap"),),
    "spark_master": (("spark_master", "spark_master_heap"),),
    "job": (("job", "job_driver_memory"),),
    "spark_worker": (("spark_worker", "spark_worker_heap"), ("spark_worker", "spark_worker_memory")),
}
#: Memory of a host that its JVMs leave to everything else, in MiB.
OTHER_MIB = 768
DOCUMENTATION = tuple(map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")))


def new(name: str) -> Path:
    """Write the inventory of a new environment of existing hosts, and return its file.

    :raises OperatorError: the name is taken or has the wrong form.
    """
    environment.check_name(name)
    if name in environment.names():
        raise OperatorError(f"{name} is an environment already: edit {paths.inventories() / name / 'hosts.yml'}")
    pattern = paths.repository() / "ansible" / "inventories" / TEMPLATE / "hosts.yml"
    file = paths.inventories() / name / "hosts.yml"
    file.parent.mkdir(parents=True)
    file.write_text(pattern.read_text(encoding="utf-8"), encoding="utf-8")
    return file


def check(session: Session) -> list[Finding]:
    """Look at everything that ``inv up`` needs: the inventory, the vault, and the hosts. Nothing is changed.

    Hosts are asked only once all of them let the account in.

    :raises OperatorError: the project makes the environment's machines.
    """
    if session.ours:
        raise OperatorError(f"the machines of {session.name} are made by inv up: inv doctor --env {session.name}")
    findings = [*_inventory(session)]
    try:
        findings.append(Finding("secrets", str(secrets.file_for(session.environment)), ok=True))
    except OperatorError as error:
        findings.append(fault_from("SP-ENV-003", "secrets", session.name, error))
    reached = []
    for host in session.environment.hosts:
        try:
            session.provider.start(host)
        except OperatorError as error:
            findings.append(fault_from("SP-ENV-004", "login", host.name, error))
        else:
            findings.append(Finding("login", host.name, ok=True))
            reached.append(host)
    if len(reached) == len(session.environment.hosts) and all(finding.ok for finding in findings):
        findings += [*_preflight(session), *_hosts(session), *doctor.clocks_agree(session)]
    return findings


def _inventory(session: Session) -> Iterator[Finding]:
    """Check that the needed groups have hosts, and that each host has an address of its own."""
    made = session.environment
    edit = f"edit {made.inventory}"
    for group in NEEDED:
        if made.in_group(group):
            yield Finding("group", group, ok=True)
        else:
            yield fault("SP-ENV-001", "group", group, "it has no host", edit)
    seen: dict[str, str] = {}
    for host in made.hosts:
        address = session.provider.address(host)
        port = login(made, host).port or 22
        other = seen.setdefault(f"{address}:{port}", host.name)
        if other != host.name:
            yield fault("SP-ENV-002", "address", host.name, f"{other} has the same address {address}", edit)
        elif re.fullmatch(r"[0-9.]+", address) and any(ipaddress.ip_address(address) in net for net in DOCUMENTATION):
            yield fault("SP-ENV-002", "address", host.name, f"{address} is an address of the example", edit)


def _preflight(session: Session) -> Iterator[Finding]:
    """Run the roles' own checks on every host: what ``inv up`` would refuse."""
    pythons = artifacts.pythons_of(session.environment)
    facts = {
        "full": bool(session.environment.in_group("monitoring")),
        "streampulse_environment": session.name,
        "streampulse_artifacts": {"wheels": {python: {} for python in pythons}},
    }
    extra: ansible.Extra = [secrets.file_for(session.environment), json.dumps(facts)]
    try:
        with changing(session, "inv env check"):
            ansible.play(session.environment, "check", extra, session.screen, session.verbose)
    except ansible.PlaybookError as error:
        if not error.failures:
            raise
        for failure in error.failures:
            for message in str(failure["msg"]).split(ansible.BETWEEN):
                host = str(failure["host"])
                yield fault_from("SP-ENV-005", "host", host, message.removeprefix(f"{host}: "))
    else:
        yield Finding("host", ", ".join(host.name for host in session.environment.hosts), ok=True)


def _hosts(session: Session) -> Iterator[Finding]:
    """Compare each host's memory with the JVMs that run there, and check that it knows the names of all hosts."""
    names = sorted({name for host in session.environment.hosts if (name := _private_name(session, host))})
    for host in session.environment.hosts:
        wanted = sum(
            _mib(session, host, *setting) * (_shards(session, host) if group == "job" else 1)
            for group in host.groups
            for setting in HEAPS.get(group, ())
        )
        with Remote(session.environment, host) as remote:
            _, meminfo, _ = remote.run(["cat", "/proc/meminfo"], timeout=30)
            unknown = [name for name in names if remote.run(["getent", "ahostsv4", name], timeout=30)[0] != 0]
        if unknown:
            cause = f"it does not know the address of {', '.join(unknown)}"
            yield fault("SP-ENV-006", "names", host.name, cause, "set private_address of that host in the inventory")
        there = int(meminfo.split()[1]) // 1024
        if wanted and wanted + OTHER_MIB > there:
            cause = f"it has {there} MiB of memory; its JVMs take {wanted} MiB and the rest {OTHER_MIB} MiB"
            settings = ", ".join(name for group in host.groups for _, name in HEAPS.get(group, ()))
            yield fault("SP-ENV-007", "memory", host.name, cause, f"give it more, or lower {settings} in the inventory")
        else:
            yield Finding("memory", f"{host.name}: {there} MiB", ok=True)


def _private_name(session: Session, host: Host) -> str:
    """Return the name that other hosts reach a host by; empty where that is an address."""
    given = str(inventory.variables(session.environment, host).get("private_address", "{{"))
    name = session.provider.address(host) if "{{" in given else given
    return "" if re.fullmatch(r"[0-9.]+", name) else name


def _shards(session: Session, host: Host) -> int:
    """Return how many drivers of the job a host runs."""
    hosts = session.environment.require_group("job")
    return len(range(hosts.index(host), services.shards(session.environment), len(hosts)))


def _mib(session: Session, host: Host, role: str, name: str) -> int:
    """Return a role's memory setting on a host, in MiB.

    :raises OperatorError: it is not a number with the unit k, m or g.
    """
    defaults = yaml.safe_load((paths.repository() / f"ansible/roles/{role}/defaults/main.yml").read_text("utf-8"))
    given = str(inventory.variables(session.environment, host).get(name, defaults[name]))
    found = re.fullmatch(r"(\d+)([kmg])", given.lower())
    if not found:
        raise OperatorError(f"{name} is {given}, which is no size such as 512m: edit {session.environment.inventory}")
    return int(int(found[1]) * {"k": 1 / 1024, "m": 1, "g": 1024}[found[2]])
