"""Environments: the folders of ansible/inventories, read without starting Ansible."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from streampulse.errors import OperatorError
from streampulse.ops import paths

PROVIDERS = ("nspawn", "vagrant", "existing")
GROUPS = ("kafka", "spark_master", "spark_worker", "postgres", "api", "generator", "monitoring")
NAME_FORM = re.compile(r"[a-z][a-z0-9-]{0,30}")
HOST_FORM = re.compile(r"[a-z][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class Host:
    """One host of an environment."""

    name: str
    groups: frozenset[str]
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment:
    """One environment: a topology and who provides its hosts."""

    name: str
    folder: Path
    hosts: tuple[Host, ...]
    variables: Mapping[str, Any]

    @property
    def provider(self) -> str:
        """The kind of provider: nspawn, vagrant or existing."""
        return str(self.variables["provider"])

    @property
    def inventory(self) -> Path:
        """The inventory file that people edit."""
        return self.folder / "hosts.yml"

    @property
    def state(self) -> Path:
        """The folder of what was made for this environment: keys, secrets, logs, machines."""
        root = paths.MACHINES_STATE if self.provider == "nspawn" else paths.state_home()
        return root / self.name

    def in_group(self, group: str) -> list[Host]:
        """Return the hosts of a group, in the inventory's order."""
        return [host for host in self.hosts if group in host.groups]

    def host(self, name: str) -> Host:
        """Return a host by name.

        :raises OperatorError: there is none of that name; the text lists those that there are.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts)
        raise OperatorError(
            f"{name} is not a host of {self.name}. There are: {known}. Try: inv ssh {known.split(',')[0]}"
        )


def names() -> list[str]:
    """Return the names of all environments."""
    return sorted(file.parent.name for file in paths.inventories().glob("*/hosts.yml"))


def load(name: str) -> Environment:
    """Read one environment.

    :raises OperatorError: there is no such environment, or its inventory cannot be read.
    """
    folder = paths.inventories() / name
    known = names()
    if name not in known:
        raise OperatorError(
            f"{name} is not an environment. There are: {', '.join(known)}. A new one: inv env new {name or 'NAME'}"
        )
    if not NAME_FORM.fullmatch(name):
        raise OperatorError(
            f"{name} is not a name for an environment: rename {folder} to lower-case letters, digits and hyphens"
        )
    file = folder / "hosts.yml"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError) as error:
        raise OperatorError(f"{file} cannot be read: {' '.join(str(error).split())}; mend it with an editor") from None
    return parse(name, folder, content)


def parse(name: str, folder: Path, content: object) -> Environment:
    """Make an environment from an inventory's content.

    :raises OperatorError: something that is needed is not there or makes no sense; the text names the file.
    """
    where = folder / "hosts.yml"
    root = content.get("all") if isinstance(content, dict) else None
    if not isinstance(root, dict):
        raise OperatorError(f"{where} has no group `all`: see ansible/inventories/local/hosts.yml for the form")
    variables = dict(root.get("vars") or {})
    if variables.get("provider") not in PROVIDERS:
        raise OperatorError(f"{where}: `provider` under all.vars must be one of {', '.join(PROVIDERS)}; set it there")
    found: dict[str, dict[str, Any]] = {}
    groups: dict[str, set[str]] = {}
    for group, host, host_variables in _memberships("all", root, ()):
        found.setdefault(host, {}).update(host_variables)
        groups.setdefault(host, set()).update(group)
    for host in found:
        if not HOST_FORM.fullmatch(host):
            raise OperatorError(f"{where}: {host} is not a host name: use lower-case letters, digits and hyphens")
    if not found:
        raise OperatorError(f"{where} has no hosts: add one to a group")
    hosts = tuple(Host(host, frozenset(groups[host]), found[host]) for host in found)
    return Environment(name, folder, hosts, variables)


def _memberships(
    name: str, group: Mapping[str, Any], parents: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, dict[str, Any]]]:
    """Walk a group and its children: for each host entry the groups it is in through it, its name, its variables."""
    chain = (*parents, name)
    for host, variables in (group.get("hosts") or {}).items():
        yield chain, str(host), dict(variables or {})
    for child, content in (group.get("children") or {}).items():
        yield from _memberships(str(child), content or {}, chain)
