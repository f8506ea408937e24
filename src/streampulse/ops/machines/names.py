"""Files that a machine gets from outside: names and the resolver."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from streampulse.errors import OperatorError


def write_resolver(root: Path) -> None:
    """Give the machine this host's resolver; a stub that listens on this host's loopback would not answer there."""
    candidates = [Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")]
    for candidate in candidates:
        text = candidate.read_text(encoding="utf-8") if candidate.exists() else ""
        if any(
            line.startswith("nameserver") and " 127." not in line and "::1" not in line for line in text.splitlines()
        ):
            target = root / "etc/resolv.conf"
            target.unlink(missing_ok=True)
            target.write_text(text, encoding="utf-8")
            return
    raise OperatorError(
        "/etc/resolv.conf names only resolvers of this host's loopback, which machines cannot reach: "
        "add a nameserver line"
    )


def write_hosts(root: Path, own: str, addresses: Mapping[str, str]) -> None:
    """Give a machine the names of all machines of its environment."""
    # The machine's own name stands for its private address, not for loopback: Spark announces what its name stands for.
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", f"{addresses[own]} {own}"]
    lines += [f"{address} {name}" for name, address in addresses.items() if name != own]
    content = "\n".join(lines) + "\n"
    file = root / "etc/hosts"
    if not file.exists() or file.read_text(encoding="utf-8") != content:
        file.write_text(content, encoding="utf-8")
