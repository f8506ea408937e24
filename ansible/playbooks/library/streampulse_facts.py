#!/usr/bin/python3
"""Ansible module: all facts about a host that the roles need beforehand, in one round trip."""

import os
import re
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: streampulse_facts
short_description: Look at a host before it is changed
description:
  - Returns the release of the operating system, the installed packages, the complete artifact sets, the foreign
    processes on streampulse's ports, PostgreSQL clusters with data, and the free space. Changes nothing, so it runs
    in check mode too.
  - It stands in for fact gathering and for a task for each of these questions.
options:
  ports:
    description: Port number to systemd unit for every port that the services of this host listen on.
    type: dict
    default: {}
  unwanted:
    description: Units that may have been set up here by an earlier inventory and that this one does not ask for.
    type: list
    elements: str
    default: []
  artifacts_dir:
    description: Where artifact sets are pushed to.
    type: path
    required: true
"""

RETURN = r"""
release: {description: Code name of the distribution, type: str, returned: always}
machine: {description: Architecture as the kernel names it, type: str, returned: always}
cores: {description: Number of processors, type: int, returned: always}
container: {description: Whether the host shares its kernel and so its clock, type: bool, returned: always}
packages: {description: Names of the installed packages, type: list, elements: str, returned: always}
artifacts: {description: Complete artifact sets as set/digest, type: list, elements: str, returned: always}
foreign: {description: One line for each streampulse port that another process holds, type: list, returned: always}
unwanted: {description: Those of these units that run or start at boot, type: list, elements: str, returned: always}
free_mb: {description: Free space below /var in MB, type: int, returned: always}
clusters: {description: PostgreSQL clusters with user databases, as version/name, type: list, returned: always}
"""

LISTEN = "0A"
# The roles install units and drop-ins here; a package's units are elsewhere.
OURS = "/etc/systemd/system/"
POSTGRES_ETC = Path("/etc/postgresql")
# The first object id that PostgreSQL gives to a database of its users.
FIRST_USER_OID = 16384
SOCKET = re.compile(r"socket:\[(\d+)\]")


def os_release() -> dict[str, str]:
    """Return the fields of /etc/os-release."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    fields = (line.partition("=") for line in lines if "=" in line)
    return {name: value.strip("\"'") for name, _, value in fields}


def installed_packages(module: AnsibleModule) -> list[str]:
    """Return the names of the fully installed packages."""
    if shutil.which("dpkg-query") is None:
        return []
    _, listing, _ = module.run_command(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}\n"], check_rc=True)
    return [name for name, _, state in (line.partition(" ") for line in listing.splitlines()) if state.startswith("ii")]


def listening_inodes(ports: set[int]) -> dict[str, int]:
    """Return the socket inode of every listener on one of the ports, with its port."""
    found: dict[str, int] = {}
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        lines = table.read_text(encoding="ascii").splitlines()[1:] if table.exists() else []
        for fields in (line.split() for line in lines):
            port = int(fields[1].rpartition(":")[2], 16)
            if fields[3] == LISTEN and port in ports:
                found[fields[9]] = port
    return found


def foreign_listeners(expected: dict[int, str]) -> list[str]:
    """Return one line for each expected port that a process outside the expected units listens on."""
    inodes = listening_inodes(set(expected))
    holders: dict[str, list[str]] = {inode: [] for inode in inodes}
    ours: set[str] = set()
    for process in (entry for entry in Path("/proc").iterdir() if inodes and entry.name.isdigit()):
        try:
            # Strings rather than paths: a busy host has thousands of descriptors.
            targets = {os.readlink(entry.path) for entry in os.scandir(process / "fd")}  # noqa: PTH115
            held = {inode for inode in SOCKET.findall(" ".join(targets)) if inode in inodes}
            if not held:
                continue
            cgroups = (process / "cgroup").read_text(encoding="utf-8")
            command = (process / "comm").read_text(encoding="utf-8").strip()
        except OSError:  # the process, or one of its descriptors, has ended
            continue
        # After a change of ports another service may still have the port; it restarts before the new one starts.
        if any(unit in cgroups for unit in expected.values()):
            ours |= held
        for inode in held:
            holders[inode].append(f"{command}, process {process.name}")
    # systemd holds a copy of the socket of a unit that stores it.
    return sorted(
        {
            f"port {port} ({expected[port]}) is held by {holder}"
            for inode, port in inodes.items()
            for holder in holders[inode]
            if inode not in ours
        }
    )


def still_there(module: AnsibleModule, units: list[str]) -> list[str]:
    """Return the running or enabled units that a role installed, as a unit file or a drop-in."""
    if not units or shutil.which("systemctl") is None:
        return []
    command = ["systemctl", "show", "--property=Id,ActiveState,UnitFileState,FragmentPath,DropInPaths", *units]
    _, listing, _ = module.run_command(command)
    found = []
    for block in listing.split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        idle = fields.get("ActiveState") in ("inactive", "failed")
        ours = OURS in fields.get("FragmentPath", "") + fields.get("DropInPaths", "")
        if ours and not (idle and fields.get("UnitFileState") != "enabled"):
            found.append(fields["Id"])
    return found


def clusters(folder: Path) -> list[str]:
    """Return the PostgreSQL clusters that hold more than the databases of a new cluster.

    :param folder: the folder of Debian's configuration of all clusters.
    """
    found = []
    for file in folder.glob("*/*/postgresql.conf"):
        given = re.search(r"^\s*data_directory\s*=?\s*'([^']+)'", file.read_text(encoding="utf-8"), re.MULTILINE)
        names = [entry.name for entry in Path(given[1]).glob("base/*")] if given else []
        if any(name.isdigit() and int(name) >= FIRST_USER_OID for name in names):
            found.append("/".join(file.parts[-3:-1]))
    return sorted(found)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "dict", "default": {}},
            "unwanted": {"type": "list", "elements": "str", "default": []},
            "artifacts_dir": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    release = os_release()
    complete = Path(module.params["artifacts_dir"]).glob("*/*/.complete")
    # Exits with 0 in a container. A host without the command is rejected because it lacks systemd.
    detect = shutil.which("systemd-detect-virt")
    container = detect is not None and module.run_command([detect, "--container", "--quiet"])[0] == 0
    module.exit_json(
        changed=False,
        release=release.get("VERSION_CODENAME", release.get("ID", "unknown")),
        pretty_name=release.get("PRETTY_NAME", "an unknown system"),
        systemd=Path("/run/systemd/system").is_dir(),
        machine=os.uname().machine,
        cores=os.cpu_count() or 1,
        container=container,
        packages=installed_packages(module),
        artifacts=sorted("/".join(path.parts[-3:-1]) for path in complete),
        foreign=foreign_listeners({int(port): unit for port, unit in module.params["ports"].items()}),
        unwanted=still_there(module, module.params["unwanted"]),
        clusters=clusters(POSTGRES_ETC),
        free_mb=shutil.disk_usage("/var").free // 1_000_000,
    )


if __name__ == "__main__":
    main()
