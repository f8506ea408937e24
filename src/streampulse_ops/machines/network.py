"""The network of an environment: one bridge, masquerading for it, a network namespace for each machine."""

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
from streampulse_ops.machines import locked

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
NAMESPACES = Path("/run/netns")
ENDING_SECONDS = 5.0
# A VPN replaces the default route by two or more routes this wide (0.0.0.0/1 and 128.0.0.0/1).
WIDEST_PREFIX = 8
MARK = "streampulse "
# Exists if IP forwarding was off before the first bridge of any environment.
WAS_OFF = "forwarding-was-off"


def _short(prefix: str, *parts: str) -> str:
    """Return a stable name of at most 15 characters, the kernel's limit for interfaces."""
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
        """Alias of the bridge, which marks it as this environment's."""
        return MARK + self.environment

    def namespace(self, host: str) -> str:
        """Return the name of a machine's network namespace."""
        return f"{self.environment}.{host}"

    def veth(self, host: str) -> str:
        """Return the name of the bridge's end of a machine's veth pair."""
        return _short("spv", self.environment, host)

    def rules(self) -> list[tuple[str, str, list[str]]]:
        """Return the firewall rules: table, chain, rule. Each names the bridge, so it belongs to this environment."""
        subnet = str(self.subnet)
        return [
            ("nat", "POSTROUTING", ["-s", subnet, "!", "-o", self.bridge, "-j", "MASQUERADE"]),
            ("filter", "FORWARD", ["-i", self.bridge, "-j", "ACCEPT"]),
            ("filter", "FORWARD", ["-o", self.bridge, "-m", "state", "--state", "RELATED,ESTABLISHED", "-j", "ACCEPT"]),
        ]

    def check_free(self) -> None:
        """Check that the subnet and the bridge's name are free.

        :raises OperatorError: a foreign interface has the name, or a foreign route overlaps with the subnet.
        """
        for link in _links():
            if link["ifname"] == self.bridge and link.get("ifalias") != self.mark:
                raise OperatorError(
                    f"an interface {self.bridge} is there that is not ours: remove it (ip link delete {self.bridge}) "
                    f"or rename the environment {self.environment}"
                )
        for route in _routes():
            taken = _destination(route)
            if (
                taken
                and taken.prefixlen >= WIDEST_PREFIX
                and route.get("dev") != self.bridge
                and taken.overlaps(self.subnet)
            ):
                raise OperatorError(
                    f"the network {self.subnet} is in use already by interface {route.get('dev')} ({taken}): choose "
                    f"another as nspawn_subnet in {self.inventory}"
                )

    def raise_bridge(self, state: Path) -> None:
        """Create the bridge, its address and its rules if missing, and enable IP forwarding.

        :param state: folder that all environments of this machine share.
        :raises OperatorError: the network or the bridge's name is taken, or a firewall stops the machines' packets.
        """
        with locked(state):
            if not any(link["ifname"] == self.bridge for link in _links()):
                self.check_free()
                if not _bridges():
                    (state / WAS_OFF).unlink(missing_ok=True)  # left by a control machine that shut down without `down`
                run(["ip", "link", "add", "name", self.bridge, "type", "bridge"])
                try:
                    run(["ip", "link", "set", self.bridge, "alias", self.mark])
                except BaseException:  # a bridge without the mark would count as foreign from now on
                    run(["ip", "link", "delete", self.bridge])
                    raise
            if FORWARDING.read_text(encoding="utf-8").strip() == "0":
                (state / WAS_OFF).touch()
                FORWARDING.write_text("1", encoding="utf-8")
        run(["ip", "address", "replace", f"{self.gateway}/{self.subnet.prefixlen}", "dev", self.bridge])
        run(["ip", "link", "set", self.bridge, "up"])
        for table, chain, rule in self.rules():
            if not _has_rule(table, chain, rule):
                run(["iptables", "-w", "-t", table, "-I", chain, *rule])
        self._check_forwarding()

    def remove_bridge(self, state: Path) -> None:
        """Remove the bridge and its rules. With the last bridge of all environments, restore IP forwarding.

        :param state: as in :meth:`raise_bridge`.
        """
        for table, chain, rule in self.rules():
            while _has_rule(table, chain, rule):
                run(["iptables", "-w", "-t", table, "-D", chain, *rule])
        with locked(state):
            if self.bridge in _bridges():
                run(["ip", "link", "delete", self.bridge])
            if (state / WAS_OFF).exists() and not _bridges():
                FORWARDING.write_text("0", encoding="utf-8")
                (state / WAS_OFF).unlink()

    def _check_forwarding(self) -> None:
        """Check that no table of nftables stops forwarded packets, whatever the rules of iptables accept.

        A table with a rule that names the bridge counts as one that lets its packets pass.

        :raises OperatorError: one does; the text has the commands that open it.
        """
        try:
            listed = json.loads(run(["nft", "--json", "list", "ruleset"]) or "{}").get("nftables", [])
        except CommandError:  # nft is not installed
            return
        for chain in (item["chain"] for item in listed if item.get("chain", {}).get("hook") == "forward"):
            family, table, name = chain["family"], chain["table"], chain["name"]
            # firewalld's policy is to accept; its last rule rejects.
            stops = chain.get("policy") == "drop" or table == "firewalld"
            own = [part for item in listed for part in item.values() if part.get("table") == table]
            known = f'"{self.bridge}"' in json.dumps([part for part in own if part.get("family") == family])
            if family in ("ip", "inet") and stops and not known:
                rule = f"nft insert rule {family} {table} {name}"
                opened = f"{rule} iifname {self.bridge} accept; {rule} oifname {self.bridge} accept"
                if table == "firewalld":
                    add = f"firewall-cmd --permanent --zone=trusted --add-interface={self.bridge}"
                    opened = f"{add} && firewall-cmd --reload"
                raise OperatorError(
                    f"the firewall {table} of this host (nft list chain {family} {table} {name}) stops packets of the "
                    f"machines: {opened}; then run the task again"
                )

    def connect(self, host: str, address: str) -> None:
        """Recreate a machine's namespace and its veth pair. No process may run in the namespace."""
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
        """Remove a machine's namespace and veth pair, if they exist.

        :raises OperatorError: processes are running in it.
        """
        namespace = self.namespace(host)
        if (NAMESPACES / namespace).exists():
            # A crash can leave an entry without a namespace. It can be deleted, but not queried for processes.
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
                # The kernel removes the veth pair shortly after the namespace at its other end.
                if any(link["ifname"] == veth for link in _links()):
                    raise

    def _processes_in(self, namespace: str) -> list[str]:
        """Return the processes of a namespace, after a wait for those that are ending."""
        deadline = time.monotonic() + ENDING_SECONDS
        while pids := run(["ip", "netns", "pids", namespace]).split():
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return pids


def _links() -> list[dict[str, Any]]:
    return list(json.loads(run(["ip", "-json", "link", "show"]) or "[]"))


def _bridges() -> list[str]:
    """Return the bridges of all environments."""
    return [link["ifname"] for link in _links() if str(link.get("ifalias", "")).startswith(MARK)]


def _routes() -> list[dict[str, Any]]:
    return list(json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]) or "[]"))


def _destination(route: dict[str, Any]) -> ipaddress.IPv4Network | None:
    """Return the destination of a route, None if it is not a network."""
    text = str(route.get("dst", ""))
    try:
        return ipaddress.IPv4Network("0.0.0.0/0" if text == "default" else text)
    except ValueError:
        return None


def _uplink_mtu() -> int:
    """Return the smallest MTU of the outgoing interfaces, so that machines' packets fit."""
    wide = ((route, _destination(route)) for route in _routes())
    devices = {route.get("dev") for route, network in wide if network and network.prefixlen < WIDEST_PREFIX}
    return min((int(link["mtu"]) for link in _links() if link["ifname"] in devices), default=1500)


def _has_rule(table: str, chain: str, rule: list[str]) -> bool:
    try:
        run(["iptables", "-w", "-t", table, "-C", chain, *rule])
    except CommandError:
        return False
    return True
