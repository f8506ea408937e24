"""Looks at the machine: file systems, memory, units and ports."""

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from streampulse.core.errors import one_line
from streampulse.host.check.host import OURS, Finding, Host, fault, fine, look

#: What the roles wrote, by path: owner, mode and digest, or a link's target (module streampulse_files).
WRITTEN: Final = Path("/var/lib/streampulse/written.json")
#: Share of a limit of the kernel at which a service comes near it.
NEAR_LIMIT: Final = 0.8
#: The services that people outside the private network ask.
PUBLIC: Final = frozenset({"api", "edge"})
_EVERY_ADDRESS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - nothing is bound here


@look("disk")
def disk(host: Host, services: dict[str, str]) -> Iterator[Finding]:
    """Look at the free space and inodes of every file system that a service writes to."""
    paths = ["/", *(each["data"] for each in host.listed() if each["data"] and each["name"] in services)]
    limit = 100 * host.limits()["disk_full"]
    seen: set[int] = set()
    for path in paths:
        if not Path(path).is_dir():
            continue
        device = os.stat(path).st_dev  # noqa: PTH116 - beside statvfs, which has no Path method
        if device in seen:
            continue
        seen.add(device)
        usage = shutil.disk_usage(path)
        percent = 100 * usage.used / (usage.used + usage.free) if usage.used + usage.free else 0.0
        inodes = os.statvfs(path)
        inode_percent = 100 * (1 - inodes.f_favail / inodes.f_files) if inodes.f_files else 0.0
        if percent >= limit:
            fix = f"du -xh --max-depth=2 {path} | sort -h | tail"
            yield fault("SP-HOST-003", "disk", f"the file system of {path} is {percent:.0f} % full", fix)
        elif inode_percent >= limit:
            cause = f"the file system of {path} has used {inode_percent:.0f} % of its inodes"
            yield fault("SP-HOST-004", "disk", cause, f"du --inodes -x --max-depth=2 {path} | sort -n | tail")
        else:
            yield fine("disk", f"{path} {percent:.0f} % full, {usage.free / 2**30:.1f} GiB free")


@look("memory")
def memory(host: Host, _: dict[str, str]) -> Iterator[Finding]:
    """Look at the available memory."""
    amounts = host.memory()
    total, available = amounts["MemTotal"], amounts["MemAvailable"]
    percent = 100 * available / total
    if percent < 100 * host.limits()["memory_low"]:
        cause = f"only {percent:.0f} % of {total / 2**20:.1f} GiB is available"
        yield fault("SP-HOST-005", "memory", cause, "ps -eo pss,rss,comm --sort=-pss | head")
    else:
        yield fine("memory", f"{available / 2**20:.1f} of {total / 2**20:.1f} GiB available")


@look("units")
def units(host: Host, services: dict[str, str]) -> Iterator[Finding]:
    """Look whether each service's unit is active and does not flap."""
    limits = host.limits()
    full = {each["name"] for each in host.listed() if each["full"]}
    for name, unit in services.items():
        seen = host.properties(unit)
        state = f"{seen.get('ActiveState')} ({seen.get('SubState')})"
        restarts = int(seen.get("NRestarts") or 0)
        since = host.uptime() - int(seen.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
        again = f"inv logs {name}; inv up{' --full' * (name in full)}"
        if seen.get("ActiveState") == "failed":
            yield fault("SP-UNIT-001", f"units.{name}", f"{unit} has failed ({seen.get('Result')})", again)
        elif seen.get("ActiveState") != "active":
            yield fault("SP-UNIT-002", f"units.{name}", f"{unit} is {state}", again)
        elif restarts >= limits["unit_flapping"] and since < limits["unit_flapping_seconds"]:
            cause = f"{unit} has come back {restarts} times, the last time {since:.0f} s ago"
            yield fault("SP-UNIT-003", f"units.{name}", cause, f"inv logs {name}")
        else:
            yield fine(f"units.{name}", f"{unit} {state}" + (f", restarted {restarts} times" if restarts else ""))


@look("limits")
def limits(host: Host, services: dict[str, str]) -> Iterator[Finding]:
    """Look whether a service comes near the kernel's limit of its open files or tasks."""
    near = False
    for name, unit in services.items():
        for what, used, limit in host.usage(unit):
            if used >= NEAR_LIMIT * limit:
                near = True
                cause = f"{unit} has {used:,} {what}, and may have {limit:,}"
                yield fault("SP-HOST-006", f"limits.{name}", cause, f"inv logs {name}")
    if not near:
        yield fine("limits", f"no service uses {NEAR_LIMIT:.0%} of its open files or tasks")


@look("drift")
def drift(_: Host, __: dict[str, str]) -> Iterator[Finding]:
    """Compare the files and links that the roles wrote with the host. A host without a record was never deployed to."""
    written = json.loads(WRITTEN.read_text(encoding="utf-8")) if WRITTEN.is_file() else {}
    changed = [path for path, state in written.items() if _state(Path(path)) != state]
    for path in changed:
        yield fault("SP-DRIFT-001", "drift", f"{path} is not as the last deploy left it", "inv up")
    if not changed:
        yield fine("drift", f"{len(written)} files are as the last deploy left them")


def _state(path: Path) -> str:
    """Describe a file or a link as the module streampulse_files does; empty: it is missing."""
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if not path.is_file():
        return ""
    there = path.stat()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{there.st_uid}:{there.st_gid} {stat.S_IMODE(there.st_mode):04o} {digest}"


@look("units.others")
def helpers(host: Host, services: dict[str, str]) -> Iterator[Finding]:
    """Look for failed units that the roles install and that are no services."""
    failed = [unit for unit in host.failed() if unit not in services.values()]
    ours = [unit for unit in failed if host.properties(unit).get("FragmentPath", "").startswith(OURS)]
    ours = [unit for unit in ours if re.match("streampulse-|spark-|kafka", unit)]
    for unit in ours:
        yield fault("SP-UNIT-001", "units.others", f"{unit} has failed", f"journalctl --unit={unit} --lines=50")
    if not ours:
        yield fine("units.others", "no helper unit has failed")


@look("ports")
def ports(host: Host, services: dict[str, str]) -> Iterator[Finding]:
    """Connect to every port that this host's services should listen on."""
    for name, address, port in _listens(host, services):
        try:
            host.connects(address, port)
        except TimeoutError:
            # A process that hangs leaves its port open until the queue of connections is full.
            cause = f"it takes no connection at {address}:{port}: it hangs, or packets are dropped"
            yield fault("SP-CHECK-002", f"ports.{name}", cause, f"inv logs {name}")
        except OSError as error:
            cause = f"nobody listens at {address}:{port} ({one_line(error)})"
            yield fault("SP-PORT-001", f"ports.{name}", cause, f"inv logs {name}")
        else:
            yield fine(f"ports.{name}", f"{address}:{port}")


@look("ports.private")
def private(host: Host, services: dict[str, str]) -> Iterator[Finding]:
    """Look whether a port of the private network is open on every address of the host."""
    listening = host.listening()
    exposed = False
    for name, address, port in _listens(host, services):
        # A service whose own address is every address has no other one to be seen at.
        if name in PUBLIC or address in _EVERY_ADDRESS:
            continue
        for each in sorted({found for found in listening if found[1] == port and found[0] in _EVERY_ADDRESS}):
            exposed = True
            cause = f"port {port} is open on every address ({each[0]}) instead of {address} only"
            yield fault("SP-PORT-002", f"ports.{name}", cause, f"ss -ltnp 'sport = :{port}'; inv up")
    if not exposed:
        yield fine("ports.private", "no private port is open on every address")


def _listens(host: Host, services: dict[str, str]) -> list[tuple[str, str, int]]:
    return [(each["name"], *pair) for each in host.listed() if each["name"] in services for pair in each["listens"]]
