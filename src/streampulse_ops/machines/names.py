"""Files that the provider writes into a machine: host names and the resolver."""

import contextlib
import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path

from streampulse.core.errors import OperatorError

RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
BEGIN, END = "# BEGIN streampulse", "# END streampulse"


def write_resolver(root: Path) -> None:
    """Copy this host's resolver configuration. A stub on this host's loopback is unreachable from the machine."""
    for candidate in RESOLVERS:
        text = candidate.read_text(encoding="utf-8") if candidate.exists() else ""
        if any(not address.is_loopback for address in _nameservers(text)):
            new = root / "etc/resolv.conf.new"
            new.write_text(text, encoding="utf-8")
            new.replace(root / "etc/resolv.conf")  # at once: a running machine reads it
            return
    raise OperatorError(
        "/etc/resolv.conf names only resolvers of this host's loopback, which machines cannot reach: "
        "add a nameserver line"
    )


def _nameservers(text: str) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Yield the addresses of a resolv.conf(5). Words are separated by spaces or tabs; a zone may follow an address."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                yield ipaddress.ip_address(words[1])


def write_hosts(root: Path, addresses: Mapping[str, str]) -> None:
    """Write the names of all machines of the environment into a machine."""
    # The base role writes the same lines between the same marks on every host, so it finds nothing to change. A
    # machine's own name resolves to its private address, not to loopback: Spark announces that address.
    names = [f"{addresses[name]} {name}" for name in sorted(addresses)]
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", BEGIN, *names, END]
    content = "\n".join(lines) + "\n"
    file = root / "etc/hosts"
    if not file.exists() or file.read_text(encoding="utf-8") != content:
        file.write_text(content, encoding="utf-8")
