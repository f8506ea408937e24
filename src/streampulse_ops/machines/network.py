"""The network of an environment: one bridge, masquerading for it, a network namespace for each machine."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streampulse.core.errors import OperatorError
from streampulse_ops.command import CommandError, run

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
NAMESPACES = Path("/run/netns")
ENDING_SECONDS = 5.0


def _short(prefix: str, *parts: str) -> str:
    """Return a name of at most 15 characters, the kernel's limit for interfaces, that stays the same."""
    return prefix + hashlib.sha256("/".join(parts).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Network:
    """The bridge and the addresses of one environment."""

    environment: str
    subnet: ipaddress.IPv4Network
    inventory: Path

    @property
    def bridge(self) -> str:
        """Name of the bridge's interface."""
        readable = f"sp-{self.environment}"
        return readable if len(readable) <= 15 else _short("sp-", self.environment)

    @property
    def gateway(self) -> str:
        """The bridge's own address, the machines' default route."""
        return str(self.subnet[1])

    @property
    def mark(self) -> str:
        """What the bridge carries to be recognised as ours."""
        return f"streampulse {self.environment}"

    def namespace(self, host: str) -> str:
        """Return the name of a machine's network namespace."""
        return f"{self.environment}.{host}"

    def veth(self, host: str) -> str:
        """Return the name of the bridge's end of a machine's cable."""
        return _short("spv", self.environment, host)

    def rules(self) -> list[tuple[str, str, list[str]]]:
        """Return the firewall rules: table, chain, rule. They name the bridge, so they cannot be another's."""
        subnet = str(self.subnet)
        return [
            ("nat", "POSTROUTING", ["-s", subnet, "!", "-o", self.bridge, "-j", "MASQUERADE"]),
            ("filter", "FORWARD", ["-i", self.bridge, "-j", "ACCEPT"]),
            ("filter", "FORWARD", ["-o", self.bridge, "-m", "state", "--state", "RELATED,ESTABLISHED", "-j", "ACCEPT"]),
        ]

    def check_free(self) -> None:
        """Check that nothing else has this network.

        :raises OperatorError: an interface or a route of something else overlaps with the subnet, or has our name.
        """
        for link in _links():
            if link["ifname"] == self.bridge and link.get("ifalias") != self.mark:
                raise OperatorError(
                    f"an interface {self.bridge} is there that is not ours: remove it (ip link delete {self.bridge}) "
                    f"or rename the environment {self.environment}"
                )
        for route in json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]) or "[]"):
            taken = _as_network(str(route.get("dst", "")))
            if taken and route.get("dev") != self.bridge and taken.overlaps(self.subnet):
                raise OperatorError(
                    f"the network {self.subnet} is in use already by interface {route.get('dev')} ({taken}): choose "
                    f"another as nspawn_subnet in {self.inventory}"
                )

    def raise_bridge(self) -> None:
        """Make the bridge, its address and its rules, each unless it is there."""
        if not any(link["ifname"] == self.bridge for link in _links()):
            self.check_free()
            run(["ip", "link", "add", "name", self.bridge, "type", "bridge"])
            try:
                run(["ip", "link", "set", self.bridge, "alias", self.mark])
            except BaseException:  # without our mark it would count as somebody else's for ever
                run(["ip", "link", "delete", self.bridge])
                raise
        run(["ip", "address", "replace", f"{self.gateway}/{self.subnet.prefixlen}", "dev", self.bridge])
        run(["ip", "link", "set", self.bridge, "up"])
        for table, chain, rule in self.rules():
            if not _has_rule(table, chain, rule):
                run(["iptables", "-w", "-t", table, "-I", chain, *rule])

    def remove_bridge(self) -> None:
        """Take the bridge and its rules away, whatever of them is there."""
        for table, chain, rule in self.rules():
            while _has_rule(table, chain, rule):
                run(["iptables", "-w", "-t", table, "-D", chain, *rule])
        if any(link["ifname"] == self.bridge and link.get("ifalias") == self.mark for link in _links()):
            run(["ip", "link", "delete", self.bridge])

    def connect(self, host: str, address: str) -> None:
        """Make a machine's namespace and its cable to the bridge, anew: nothing may be running in it."""
        self.disconnect(host)
        namespace, veth = self.namespace(host), self.veth(host)
        run(["ip", "netns", "add", namespace])
        mtu = str(_uplink_mtu())
        peer = ["peer", "name", "eth0", "netns", namespace, "mtu", mtu]
        run(["ip", "link", "add", "name", veth, "mtu", mtu, "type", "veth", *peer])
        run(["ip", "link", "set", veth, "master", self.bridge, "up"])
        inside = ["ip", "-netns", namespace]
        run([*inside, "link", "set", "lo", "up"])
        run([*inside, "address", "add", f"{address}/{self.subnet.prefixlen}", "dev", "eth0"])
        run([*inside, "link", "set", "eth0", "up"])
        run([*inside, "route", "add", "default", "via", self.gateway])

    def disconnect(self, host: str) -> None:
        """Remove a machine's namespace and cable, whatever of them is there.

        :raises OperatorError: processes are running in it.
        """
        namespace = self.namespace(host)
        if (NAMESPACES / namespace).exists():
            # An entry that a crash left without a namespace behind it cannot be asked, only deleted.
            with contextlib.suppress(CommandError):
                pids = self._processes_in(namespace)
                if pids:
                    raise OperatorError(
                        f"the network namespace {namespace} is in use by pid {', '.join(pids)}, which is not ours: end "
                        f"it, or rename the host in {self.inventory}"
                    )
            run(["ip", "netns", "delete", namespace])
        veth = self.veth(host)
        if any(link["ifname"] == veth for link in _links()):
            try:
                run(["ip", "link", "delete", veth])
            except CommandError:
                # The kernel takes the cable away by itself, a moment after the namespace at its other end.
                if any(link["ifname"] == veth for link in _links()):
                    raise

    def _processes_in(self, namespace: str) -> list[str]:
        """Return the processes of a namespace, once those that are just ending have had time to."""
        deadline = time.monotonic() + ENDING_SECONDS
        while pids := run(["ip", "netns", "pids", namespace]).split():
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return pids


def _links() -> list[dict[str, Any]]:
    return list(json.loads(run(["ip", "-json", "link", "show"]) or "[]"))


def _uplink_mtu() -> int:
    """Return the packet size of the host's way out, so that machines' packets fit through it."""
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "default"]) or "[]")
    devices = {route.get("dev") for route in routes}
    return min((int(link["mtu"]) for link in _links() if link["ifname"] in devices), default=1500)


def _as_network(text: str) -> ipaddress.IPv4Network | None:
    if text == "default":
        return None
    try:
        return ipaddress.IPv4Network(text)
    except ValueError:
        return None


def _has_rule(table: str, chain: str, rule: list[str]) -> bool:
    try:
        run(["iptables", "-w", "-t", table, "-C", chain, *rule])
    except CommandError:
        return False
    return True


def allow_forwarding(record: Path) -> None:
    """Let the kernel forward packets, noting in ``record`` that it was us who changed that."""
    if FORWARDING.read_text(encoding="utf-8").strip() == "0":
        record.touch()
        FORWARDING.write_text("1", encoding="utf-8")


def restore_forwarding(record: Path) -> None:
    """Set forwarding back if it was us who changed it."""
    if record.exists():
        FORWARDING.write_text("0", encoding="utf-8")
        record.unlink()
