"""How the control machine's apt reaches Debian, for images and for machines: its proxies and its mirror."""

import re
from pathlib import Path

from streampulse_ops.command import run

# mmdebstrap writes the proxies of an image's build there.
PROXIES = "etc/apt/apt.conf.d/99mmdebstrap"
PROXY = re.compile(r'Acquire::https?::Proxy(::\S+)? "[^"]+";', re.IGNORECASE)
LOOPBACK = re.compile(r"(?<=[/@])(localhost|127(\.\d+){3}|\[::1\])(?=[:/\"])")


def proxies() -> list[str]:
    """Return apt's proxies of this machine, each as a line of apt.conf."""
    return [line for line in run(["apt-config", "dump"]).splitlines() if PROXY.fullmatch(line)]


def sources(suite: str) -> list[str]:
    """Return a suite's sources where this machine gets Debian's packages, each as a line of sources.list.

    Empty if this machine has no such sources, or has not yet fetched their lists.
    """
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(LABEL)", "Origin: Debian"]
    found = [line.split(maxsplit=1) for line in run(asked).splitlines() if line.startswith("http")]
    uris = {label: uri for uri, label in found}
    wanted = [("Debian", suite), ("Debian", f"{suite}-updates"), ("Debian-Security", f"{suite}-security")]
    return [f"deb {uris[label]} {name} main" for label, name in wanted if label in uris]


def write_proxies(root: Path, gateway: str) -> None:
    """Write the proxies into a machine.

    :param gateway: the machine's address for this host, in place of a loopback.
    """
    file = root / PROXIES
    file.unlink(missing_ok=True)
    if lines := proxies():
        _write(file, lines, gateway)


def write_sources(root: Path, suite: str, gateway: str) -> None:
    """Write the sources, if there are any, into a machine; parameters as in :func:`write_proxies`."""
    if lines := sources(suite):
        _write(root / "etc/apt/sources.list", lines, gateway)


def _write(file: Path, lines: list[str], gateway: str) -> None:
    file.write_text(LOOPBACK.sub(gateway, "\n".join(lines)) + "\n", encoding="utf-8")
