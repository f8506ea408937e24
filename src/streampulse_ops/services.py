"""Which services there are, from the same variables that the roles use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import yaml

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.environments import inventory
from streampulse_ops.environments.environment import Environment, Host

# The group of what every host runs that has any other group.
EVERY = "all"
VARIABLES = "ansible/playbooks/group_vars/all/streampulse.yml"


@dataclass(frozen=True)
class Service:
    """One service: what people call it, its unit, and the group whose hosts run it.

    The group ``all`` stands for every host that has any other group. Monitoring (``full``) is there only where
    ``--full`` has set it up, which the host itself must say.
    """

    name: str
    unit: str
    group: str
    full: bool = False


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
    return tuple(
        Service(s["name"], re.sub(r"\{\{.*?\}\}", "*", s["unit"]), s["group"], bool(s.get("full"))) for s in listed
    )


def named(name: str) -> Service:
    """Return a service by name.

    :raises OperatorError: there is none of that name; the text lists those that there are.
    """
    for service in all_services():
        if service.name == name:
            return service
    known = ", ".join(service.name for service in all_services())
    raise OperatorError(f"{name} is not a service. There are: {known}. Try: inv logs {all_services()[0].name}")


def runs(host: Host, service: Service) -> bool:
    """Return whether the inventory asks a host for a service."""
    if service.group == EVERY:
        return any(other.group in host.groups for other in all_services() if other.group != EVERY)
    return service.group in host.groups


def on_host(host: Host) -> list[Service]:
    """Return the services that a host runs with ``--full``, in the order of starting."""
    return [service for service in all_services() if runs(host, service)]


def base_on_host(host: Host) -> list[Service]:
    """Return the services that a host runs in any case, in the order of starting."""
    return [service for service in on_host(host) if not service.full]
