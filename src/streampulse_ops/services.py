"""The list of services in ansible/services.yml, as the tasks read it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import yaml

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops import paths
from streampulse_ops.environments import inventory
from streampulse_ops.environments.environment import Environment, Host

# The group of a service that runs on every host of any other group.
EVERY = "all"
LIST = "ansible/services.yml"
RELEASE = "/opt/streampulse/current"


@dataclass(frozen=True)
class Page:
    """A page of a service: the name of its port, the path, the subject, and the setting that turns it on, if any."""

    group: str
    port: str
    path: str
    about: str
    setting: str = ""


@dataclass(frozen=True)
class Service:
    """One service: an entry of the list, whose head explains the fields.

    The group ``all`` stands for every host that has any other group. Monitoring (``full``) is there only where
    ``--full`` has set it up, which the host itself must say.
    """

    name: str
    unit: str
    group: str
    full: bool = False
    version: str = RELEASE
    user: str = ""
    severity: str = ""
    needed: str = ""
    packaged: bool = False
    once: bool = False
    ports: Mapping[str, str] = field(default_factory=dict)

    @property
    def units(self) -> tuple[str, ...]:
        """The unit, and the pattern of the job's shards."""
        return (self.unit, self.unit.replace(".", "@*.")) if self.name == "job" else (self.unit,)


def port(environment: Environment, name: str) -> int:
    """Return the number of a port in an environment: the inventory's own, else the default.

    :raises OperatorError: Ansible cannot read the inventory, or what it says is not a number.
    """
    found = inventory.variables(environment, environment.hosts[0])["streampulse_ports"][name]
    try:
        return int(found)
    except (TypeError, ValueError):
        raise OperatorError(
            f"streampulse_ports.{name} is {found} in {environment.inventory}, which is not a port: write a number there"
        ) from None


def shards(environment: Environment) -> int:
    """Return the number of the job's drivers in an environment.

    :raises OperatorError: Ansible cannot read the inventory, or what it says is not a number.
    """
    found = inventory.variables(environment, environment.hosts[0]).get("job_shards", 1)
    try:
        return int(found)
    except (TypeError, ValueError):
        raise OperatorError(
            f"job_shards is {found} in {environment.inventory}, which is not a number: write one there"
        ) from None


@cache
def entries() -> tuple[dict[str, Any], ...]:
    """Return the entries of the list as they are written, in the order of starting."""
    return tuple(yaml.safe_load((paths.repository() / LIST).read_text(encoding="utf-8"))["streampulse_services"])


@cache
def all_services() -> tuple[Service, ...]:
    """Return every service, in the order of starting."""
    known = Service.__dataclass_fields__.keys() - {"unit"}
    return tuple(
        Service(
            # PostgreSQL's unit carries its version, which depends on the host; systemctl takes patterns.
            unit=re.sub(r"\{\{.*?\}\}", "*", entry["unit"]),
            **{name: value for name, value in entry.items() if name in known},
        )
        for entry in entries()
    )


@cache
def pages() -> Mapping[str, Page]:
    """Return the pages of all services by name."""
    return {
        name: Page(group=entry["group"], **page) for entry in entries() for name, page in entry.get("pages", {}).items()
    }


def named(name: str) -> Service:
    """Return a service by name.

    :raises UsageError: there is none of that name; the text lists those that there are.
    """
    for service in all_services():
        if service.name == name:
            return service
    known = ", ".join(service.name for service in all_services())
    raise UsageError(f"{name} is not a service. There are: {known}. Try: inv logs {all_services()[0].name}")


def runs(host: Host, service: Service) -> bool:
    """Return whether the inventory asks a host for a service."""
    if service.group == EVERY:
        return any(other.group in host.groups for other in all_services() if other.group != EVERY)
    return service.group in host.groups


def hosts_of(environment: Environment, service: Service) -> list[Host]:
    """Return the hosts that run a service: of one that runs ``once``, the first host of its group."""
    hosts = [each for each in environment.hosts if runs(each, service)]
    return hosts[:1] if service.once else hosts


def on_host(host: Host) -> list[Service]:
    """Return the services that a host runs with ``--full``, in the order of starting."""
    return [service for service in all_services() if runs(host, service)]


def base_on_host(host: Host) -> list[Service]:
    """Return the services that a host runs in any case, in the order of starting."""
    return [service for service in on_host(host) if not service.full]
