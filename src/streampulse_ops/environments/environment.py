"""Environments: the folders of ansible/inventories, read without starting Ansible."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops import paths

PROVIDERS = ("nspawn", "vagrant", "existing")
NAME_FORM = re.compile(r"[a-z][a-z0-9-]{0,30}")
# Names that nspawn's state folder uses for other files.
RESERVED = ("images", "layers", "forwarding-was-off")
HOST_FORM = re.compile(r"[a-z][a-z0-9-]{0,62}")


class _Loader(yaml.SafeLoader):
    """YAML with Ansible's tags; an encrypted value stays as it is written."""


yaml.add_constructor("!vault", yaml.SafeLoader.construct_yaml_str, _Loader)
yaml.add_constructor("!unsafe", yaml.SafeLoader.construct_yaml_str, _Loader)


@dataclass(frozen=True)
class Host:
    """One host of an environment."""

    name: str
    groups: frozenset[str]
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment:
    """One environment: its hosts, their groups, and their provider."""

    name: str
    folder: Path
    hosts: tuple[Host, ...]
    variables: Mapping[str, Any]
    #: The unpacked release whose playbooks and roles apply; None: the checkout's.
    release: Path | None = None
    #: Whether groups other than ``all`` have variables for Ansible itself; only Ansible knows which of them win.
    of_groups: bool = False

    @property
    def root(self) -> Path:
        """The folder with the playbooks, roles, units and rules that apply."""
        return self.release or paths.repository()

    @property
    def provider(self) -> str:
        """The kind of provider: nspawn, vagrant or existing."""
        return str(self.variables["provider"])

    @property
    def ours(self) -> bool:
        """Whether the project makes and removes the machines; False for hosts that exist already."""
        return self.provider != "existing"

    @property
    def typed(self) -> str:
        """The name to type before something is lost, where the inventory has ``protected: true``; else empty."""
        return self.name if self.variables.get("protected") is True else ""

    @property
    def drills_allowed(self) -> bool:
        """Whether the inventory allows to break services on purpose."""
        return self.variables.get("drills_allowed") is True

    @property
    def inventory(self) -> Path:
        """The inventory file that people edit."""
        return self.folder / "hosts.yml"

    @property
    def state(self) -> Path:
        """The folder of this environment's keys, secrets, logs and machines on the control machine."""
        root = paths.MACHINES_STATE if self.provider == "nspawn" else paths.state_home()
        return root / self.name

    def in_group(self, group: str) -> list[Host]:
        """Return the hosts of a group, in the inventory's order."""
        return [host for host in self.hosts if group in host.groups]

    def require_group(self, group: str) -> list[Host]:
        """Return the hosts of a group, in the inventory's order.

        :raises OperatorError: the group has no hosts.
        """
        hosts = self.in_group(group)
        if not hosts:
            raise OperatorError(f"{self.name} has no host in group {group}: add one to {self.inventory}")
        return hosts

    def host(self, name: str) -> Host:
        """Return a host by name.

        :raises OperatorError: there is no such host; the text lists the hosts.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts)
        raise OperatorError(
            f"{name} is not a host of {self.name}. There are: {known}. Look: inv status --env {self.name}"
        )


def names() -> list[str]:
    """Return the names of all environments."""
    return sorted(file.parent.name for file in paths.inventories().glob("*/hosts.yml"))


def check_name(name: str) -> None:
    """Check that an environment can have a name.

    :raises UsageError: it has not the form, or stands for something else.
    """
    if not NAME_FORM.fullmatch(name):
        raise UsageError(f"{name!r} is not a name for an environment: use lower-case letters, digits and hyphens")
    if name in RESERVED:
        raise UsageError(f"{name!r} is not a name for an environment: the machines' own files are called so")


def load(name: str) -> Environment:
    """Read one environment.

    :raises OperatorError: there is no such environment, or its inventory cannot be read.
    """
    folder = paths.inventories() / name
    if not os.access(paths.inventories(), os.R_OK | os.X_OK) or not paths.inventories().is_dir():
        raise OperatorError(
            f"{paths.inventories()} is no folder that can be read: correct it, or name another one with"
            " STREAMPULSE_INVENTORIES"
        )
    known = names()
    if name not in known:
        try:
            check_name(name)
            new = name
        except OperatorError:
            new = "NAME"  # for which this would be refused
        raise OperatorError(
            f"{name or 'nothing'} is not an environment. There are: {', '.join(known)}. A new one: inv env new {new}"
        )
    try:
        check_name(name)
    except OperatorError as error:
        raise OperatorError(f"{error}; rename {folder}") from None
    return read(name, folder)


def read(name: str, folder: Path) -> Environment:
    """Read an environment's inventory from a folder.

    :raises OperatorError: the inventory cannot be read.
    """
    file = folder / "hosts.yml"
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a subclass of SafeLoader
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{file} cannot be read: {' '.join(str(error).split())}; fix it with an editor") from None
    try:
        return parse(name, folder, content)
    except RecursionError:
        raise OperatorError(f"{file} has a group that contains itself; fix it with an editor") from None


def parse(name: str, folder: Path, content: object) -> Environment:
    """Make an environment from an inventory's content.

    :raises OperatorError: something that is needed is not there or makes no sense; the text names the file.
    """
    where = folder / "hosts.yml"
    root = content.get("all") if isinstance(content, dict) else None
    if not isinstance(root, dict):
        raise OperatorError(f"{where} has no group `all`: see ansible/inventories/local/hosts.yml for the form")
    variables = _mapping(root.get("vars"), "all.vars", where)
    if variables.get("provider") not in PROVIDERS:
        raise OperatorError(f"{where}: `provider` under all.vars must be one of {', '.join(PROVIDERS)}; set it there")
    _check_switches(variables, where)
    check_port(variables, "all.vars'", where)
    ports = variables.get("streampulse_ports")
    if "{{" not in str(ports):  # a rule that only Ansible can work out
        _mapping(ports, "streampulse_ports", where)
    found: dict[str, dict[str, Any]] = {}
    groups: dict[str, set[str]] = {}
    for group, host, host_variables in _memberships("all", root, (), where):
        found.setdefault(host, {}).update(host_variables)
        groups.setdefault(host, set()).update(group)
    for host, host_variables in found.items():
        if not HOST_FORM.fullmatch(host):
            raise OperatorError(f"{where}: {host} is not a host name: use lower-case letters, digits and hyphens")
        check_port(host_variables, f"{host}'s", where)
    if not found:
        raise OperatorError(f"{where} has no hosts: add one to a group")
    _add_default_edge(groups, found, variables)
    if not any("job" in names for names in groups.values()):
        # As Ansible's inventory plugin does.
        for names in groups.values():
            names |= {"job"} if "spark_master" in names else set()
    hosts = tuple(Host(host, frozenset(groups[host]), found[host]) for host in found)
    return Environment(name, folder, hosts, variables, of_groups=_has_connections({**root, "vars": {}}))


def _add_default_edge(
    groups: Mapping[str, set[str]], hosts: Mapping[str, Mapping[str, Any]], variables: Mapping[str, Any]
) -> None:
    """Add the hosts of a public API to the group ``edge`` where it has none, as Ansible's inventory plugin does."""
    if any("edge" in names for names in groups.values()):
        return
    api = [host for host, names in groups.items() if "api" in names]
    default = variables.get("api_public", variables["provider"] == "existing")
    if any(str(hosts[host].get("api_public", default)).lower() in ("true", "yes", "on", "1") for host in api):
        for host in api:
            groups[host].add("edge")


def _memberships(
    name: str, group: Mapping[str, Any], parents: tuple[str, ...], where: Path
) -> Iterator[tuple[tuple[str, ...], str, dict[str, Any]]]:
    """Walk a group and its children: for each host entry the groups it is in through it, its name, its variables."""
    chain = (*parents, name)
    _mapping(group.get("vars"), f"vars of {name}", where)
    for host, variables in _mapping(group.get("hosts"), f"hosts of {name}", where).items():
        yield chain, str(host), _mapping(variables, f"{host} in {name}", where)
    for child, content in _mapping(group.get("children"), f"children of {name}", where).items():
        yield from _memberships(str(child), _mapping(content, f"group {child}", where), chain, where)


def _has_connections(group: Mapping[str, Any]) -> bool:
    """Return whether a group, or one of its children, has variables for Ansible itself."""
    children = (group.get("children") or {}).values()
    own = any(str(name).startswith("ansible_") for name in group.get("vars") or {})
    return own or any(_has_connections(child or {}) for child in children)


def _mapping(value: object, what: str, where: Path) -> dict[Any, Any]:
    """Return a mapping; None is an empty one.

    :raises OperatorError: it is a list, a text or a number.
    """
    if value is None or isinstance(value, dict):
        return dict(value or {})
    kind = "a list" if isinstance(value, list) else f"`{value}`"
    raise OperatorError(f"{where}: {what} must be lines of `name: value` and is {kind}; fix it with an editor")


def _check_switches(variables: Mapping[str, Any], where: Path) -> None:
    """Check that what protects an environment is true or false.

    :raises OperatorError: it is something else, such as a text.
    """
    for name in ("protected", "drills_allowed"):
        if not isinstance(variables.get(name, False), bool):
            raise OperatorError(f"{where}: {name} is {variables[name]!r}: write true or false there, without quotes")


def check_port(variables: Mapping[str, Any], whose: str, where: Path) -> None:
    """Check that ansible_port is a port, or a template that only Ansible evaluates.

    :raises OperatorError: it is neither.
    """
    port = str(variables.get("ansible_port", 22))
    if "{{" not in port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise OperatorError(f"{where}: {whose} ansible_port is {port}, which is not a port: write a number there")
