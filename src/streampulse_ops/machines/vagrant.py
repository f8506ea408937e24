"""Virtual machines of Vagrant, with any hypervisor that it finds."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.command import CommandError, run, which
from streampulse_ops.environments.environment import Host
from streampulse_ops.machines import Provider

KEYS = "host-keys.json"
SSH_PORT = 22


class Vagrant(Provider):
    """The machines of one environment; vagrant/Vagrantfile reads the same inventory."""

    def describe(self) -> str:
        """Return a short description."""
        return f"Vagrant, {self.environment.variables.get('vagrant_box', 'Debian 13')}"

    def create(self, host: Host) -> bool:
        """Create and start the machine: Vagrant does both at once."""
        if self._state(host) != "not_created":
            return False
        self._forget_key(host)
        return self.start(host)

    def start(self, host: Host) -> bool:
        """Start the machine."""
        if self.running(host):
            return False
        self.report(f"starting {host.name} with Vagrant (a minute or more)")
        self._vagrant("up", host.name)
        return True

    def stop(self, host: Host) -> bool:
        """Shut the machine down and keep its disk."""
        if not self.running(host):
            return False
        self._vagrant("halt", host.name)
        return True

    def destroy(self, host: Host) -> bool:
        """Remove the machine and its disk."""
        if self._state(host) == "not_created":
            return False
        self._vagrant("destroy", "--force", host.name)
        self._forget_key(host)
        return True

    def running(self, host: Host) -> bool:
        """Return whether Vagrant reports the machine as running."""
        return self._state(host) == "running"

    def address(self, host: Host) -> str:
        """Return the machine's private address from the inventory.

        :raises OperatorError: it has none.
        """
        given = host.variables.get("private_address")
        if not given:
            raise OperatorError(f"{host.name} has no private_address: give it one in {self.environment.inventory}")
        return str(given)

    def write_inventory(self) -> Path | None:
        """Write each machine's login data from `vagrant ssh-config`."""
        hosts = ssh_hosts(self._vagrant("ssh-config", *(host.name for host in self.environment.hosts)).splitlines())
        known_hosts = self.environment.state / "known_hosts"
        for host in self.environment.hosts:
            hosts[host.name] |= {
                "private_address": self.address(host),
                "ansible_ssh_common_args": f"-o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=yes",
            }
        known_hosts.write_text("".join(self._known_hosts(hosts)), encoding="utf-8")
        file = self.environment.state / "inventory.json"
        file.write_text(json.dumps({"all": {"hosts": hosts}}, indent=2) + "\n", encoding="utf-8")
        return file

    def forget(self) -> None:
        """Remove the inventory and the host keys."""
        for name in ("inventory.json", "known_hosts", KEYS):
            (self.environment.state / name).unlink(missing_ok=True)

    def _keys(self) -> dict[str, list[str]]:
        """Return the host keys of each machine from its creation."""
        file = self.environment.state / KEYS
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}

    def _forget_key(self, host: Host) -> None:
        keys = self._keys()
        if keys.pop(host.name, None):
            (self.environment.state / KEYS).write_text(json.dumps(keys, indent=2) + "\n", encoding="utf-8")

    def _known_hosts(self, hosts: Mapping[str, Mapping[str, object]]) -> list[str]:
        """Return the lines of known_hosts. A machine's key is scanned once, over the hypervisor's own network.

        SSH rejects any other key until the machine is re-created.
        """
        keys, lines = self._keys(), []
        for name, login in hosts.items():
            address, port = str(login["ansible_host"]), int(str(login["ansible_port"]))
            found = keys.get(name) or host_keys(run(["ssh-keyscan", "-p", str(port), address]))
            if found:
                keys[name] = found
            # A machine's forwarded port may change at each start.
            where = address if port == SSH_PORT else f"[{address}]:{port}"
            lines += [f"{where} {key}\n" for key in found]
        (self.environment.state / KEYS).write_text(json.dumps(keys, indent=2) + "\n", encoding="utf-8")
        return lines

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
            raise OperatorError(
                f"Vagrant: {plain_error(str(error))}; by hand: cd vagrant && vagrant {' '.join(arguments)}"
            ) from None


def plain_error(text: str) -> str:
    """Return the error in Vagrant's machine-readable output as one line; any other text unchanged."""
    _, found, rest = text.partition(",error-exit,")
    message = rest.partition(",")[2].replace("%!(VAGRANT_COMMA)", ",").replace("\\n", " ")
    return " ".join(message.split()).rstrip(".") if found else text


def machine_state(listing: str) -> str:
    """Parse the state in Vagrant's machine-readable status: lines ``time,machine,kind,data``."""
    for line in listing.splitlines():
        fields = line.split(",")
        if len(fields) > 3 and fields[2] == "state":
            return fields[3]
    return "not_created"


def ssh_hosts(lines: Iterable[str]) -> dict[str, dict[str, object]]:
    """Parse the output of `vagrant ssh-config` into inventory variables."""
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


def host_keys(listing: str) -> list[str]:
    """Parse ssh-keyscan's output into kinds and keys, without the scanned address."""
    lines = (line.partition(" ") for line in listing.splitlines() if line and not line.startswith("#"))
    return sorted(key.strip() for _, _, key in lines)
