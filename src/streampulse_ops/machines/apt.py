"""How the control machine's apt reaches Debian, for images and for machines: its proxies and its mirror."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from streampulse_ops.command import run

# mmdebstrap writes the proxies of an image's build there.
PROXIES = "etc/apt/apt.conf.d/99mmdebstrap"
PROXY = re.compile(r'Acquire::https?::Proxy(::\S+)? "[^"]+";', re.IGNORECASE)
OFFICIAL = ("deb.debian.org", "security.debian.org")
LOOPBACK = re.compile(r"(?<=[/@])(localhost|127(\.\d+){3}|\[::1\])(?=[:/\"])")


def proxies() -> list[str]:
    """Return apt's proxies of this machine, each as a line of apt.conf."""
    return [line for line in run(["apt-config", "dump"]).splitlines() if PROXY.fullmatch(line)]


def sources(suite: str) -> list[str]:
    """Return a suite's sources on this machine's mirror of Debian, each as a line of sources.list.

    Empty if this machine has no mirror, or has not yet fetched its lists.
    """
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(LABEL)", "Origin: Debian"]
    found = [line.split(maxsplit=1) for line in run(asked).splitlines() if line.startswith("http")]
    mirrors = {label: uri for uri, label in found if urlsplit(uri).hostname not in OFFICIAL}
    archive = mirrors.get("Debian", "http://deb.debian.org/debian")
    security = mirrors.get("Debian-Security", "http://security.debian.org/debian-security")
    pairs = [(archive, suite), (archive, f"{suite}-updates"), (security, f"{suite}-security")]
    return [f"deb {uri} {name} main" for uri, name in pairs] if mirrors else []


def write_proxies(root: Path, gateway: str) -> None:
    """Write the proxies into a machine.

    :param gateway: the machine's address for this host, in place of a loopback.
    """
    file = root / PROXIES
    file.unlink(missing_ok=True)
    if lines := proxies():
        _write(file, lines, gateway)


def write_sources(root: Path, suite: str, gateway: str) -> None:
    """Write the mirror, if there is one, into a machine; parameters as in :func:`write_proxies`."""
    if lines := sources(suite):
        _write(root / "etc/apt/sources.list", lines, gateway)


def _write(file: Path, lines: list[str], gateway: str) -> None:
    file.write_text(LOOPBACK.sub(gateway, "\n".join(lines)) + "\n", encoding="utf-8")
