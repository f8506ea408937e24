"""Virtual machines made by Vagrant, with whichever hypervisor it finds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from streampulse.errors import OperatorError
from streampulse.ops import paths
from streampulse.ops.command import CommandError, run, which
from streampulse.ops.environment import Environment, Host
from streampulse.ops.machines import Report


class Vagrant:
    """The machines of one environment; vagrant/Vagrantfile reads the same inventory."""

    def __init__(self, environment: Environment, report: Report) -> None:
        self.environment = environment
        self.report = report

    def describe(self) -> str:
        """Return what the machines are."""
        return f"Vagrant, {self.environment.variables.get('vagrant_box', 'debian/trixie64')}"

    def create(self, host: Host) -> bool:
        """Make the machine together with its first start, as Vagrant does."""
        if self._state(host) != "not_created":
            return False
        return self.start(host)

    def start(self, host: Host) -> bool:
        """Start the machine."""
        if self.running(host):
            return False
        self.report(f"starting {host.name} with Vagrant (a minute or more)")
        self._vagrant("up", host.name)
        return True

    def stop(self, host: Host) -> bool:
        """Shut the machine down, its disk kept."""
        if not self.running(host):
            return False
        self._vagrant("halt", host.name)
        return True

    def destroy(self, host: Host) -> bool:
        """Remove the machine and its disk."""
        if self._state(host) == "not_created":
            return False
        self._vagrant("destroy", "--force", host.name)
        return True

    def retire(self) -> list[Host]:
        """None: Vagrant itself does not know a machine that is not in the inventory."""
        return []

    def running(self, host: Host) -> bool:
        """Return whether Vagrant says that it runs."""
        return self._state(host) == "running"

    def address(self, host: Host) -> str:
        """Return the private address that the inventory gives the machine.

        :raises OperatorError: it gives none.
        """
        given = host.variables.get("private_address")
        if not given:
            raise OperatorError(f"{host.name} has no private_address: give it one in {self.environment.inventory}")
        return str(given)

    def console_log(self, _host: Host) -> Path | None:
        """Return None: the hypervisor has the console."""
        return None

    def write_inventory(self) -> Path | None:
        """Write how to log in to each machine, as `vagrant ssh-config` says."""
        hosts = ssh_hosts(self._vagrant("ssh-config", *(host.name for host in self.environment.hosts)).splitlines())
        known_hosts = self.environment.state / "known_hosts"
        for host in self.environment.hosts:
            hosts[host.name] |= {
                "private_address": self.address(host),
                "ansible_ssh_common_args": f"-o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=yes",
            }
        known_hosts.write_text("".join(_host_keys(hosts.values())), encoding="utf-8")
        file = self.environment.state / "inventory.json"
        file.write_text(json.dumps({"all": {"hosts": hosts}}, indent=2) + "\n", encoding="utf-8")
        return file

    def forget(self) -> None:
        """Remove the inventory and the host keys."""
        for name in ("inventory.json", "known_hosts"):
            (self.environment.state / name).unlink(missing_ok=True)

    def _state(self, host: Host) -> str:
        return machine_state(self._vagrant("status", "--machine-readable", host.name))

    def _vagrant(self, *arguments: str) -> str:
        if which("vagrant") is None:
            raise OperatorError(
                f"{self.environment.name} is provided by Vagrant, which is not installed: apt-get install vagrant "
                "vagrant-libvirt, or use an environment of provider nspawn"
            )
        variables = {
            "STREAMPULSE_INVENTORY": str(self.environment.inventory),
            "VAGRANT_DOTFILE_PATH": str(self.environment.state / "vagrant"),
        }
        try:
            return run(["vagrant", *arguments], cwd=paths.repository() / "vagrant", environment=variables)
        except CommandError as error:
            raise OperatorError(f"Vagrant: {error}; by hand: cd vagrant && vagrant {' '.join(arguments)}") from None


def machine_state(listing: str) -> str:
    """Read the state from Vagrant's machine-readable status: lines ``time,machine,kind,data``."""
    for line in listing.splitlines():
        fields = line.split(",")
        if len(fields) > 3 and fields[2] == "state":
            return fields[3]
    return "not_created"


def ssh_hosts(lines: Iterable[str]) -> dict[str, dict[str, object]]:
    """Read the output of `vagrant ssh-config` into inventory variables."""
    names = {"HostName": "ansible_host", "Port": "ansible_port", "User": "ansible_user"}
    hosts: dict[str, dict[str, object]] = {}
    current: dict[str, object] = {}
    for line in lines:
        keyword, _, value = line.strip().partition(" ")
        value = value.strip().strip('"')
        if keyword == "Host":
            current = hosts.setdefault(value, {})
        elif keyword == "IdentityFile":
            current.setdefault("ansible_ssh_private_key_file", value)
        elif keyword in names:
            current[names[keyword]] = int(value) if keyword == "Port" else value
    return hosts


def _host_keys(hosts: Iterable[dict[str, object]]) -> list[str]:
    """Ask each machine for its key right after it was made, over the hypervisor's own network."""
    return [run(["ssh-keyscan", "-p", str(h["ansible_port"]), str(h["ansible_host"])]) for h in hosts]


def provider(environment: Environment, report: Report) -> Vagrant:
    """Return the provider of an environment."""
    return Vagrant(environment, report)
