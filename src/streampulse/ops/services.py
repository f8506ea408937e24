"""Which services there are, from the same variables that the roles use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import yaml

from streampulse.errors import OperatorError
from streampulse.ops import inventory, paths
from streampulse.ops.environment import Environment, Host

VARIABLES = "ansible/playbooks/group_vars/all/streampulse.yml"


@dataclass(frozen=True)
class Service:
    """One service: what people call it, its unit, and the group whose hosts run it."""

    name: str
    unit: str
    group: str


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


@cache
def all_services() -> tuple[Service, ...]:
    """Return every service, in the order of starting."""
    listed = yaml.safe_load((paths.repository() / VARIABLES).read_text(encoding="utf-8"))["streampulse_services"]
    # What depends on the host (the version in PostgreSQL's unit) is a pattern here; systemctl takes patterns.
    return tuple(Service(s["name"], re.sub(r"\{\{.*?\}\}", "*", s["unit"]), s["group"]) for s in listed)


def named(name: str) -> Service:
    """Return a service by name.

    :raises OperatorError: there is none of that name; the text lists those that there are.
    """
    for service in all_services():
        if service.name == name:
            return service
    known = ", ".join(service.name for service in all_services())
    raise OperatorError(f"{name} is not a service. There are: {known}. Try: inv logs {all_services()[0].name}")


def on_host(host: Host) -> list[Service]:
    """Return the services of a host, in the order of starting."""
    return [service for service in all_services() if service.group in host.groups]


def hosts_of(environment: Environment, service: Service) -> list[Host]:
    """Return the hosts that run a service."""
    return environment.in_group(service.group)
