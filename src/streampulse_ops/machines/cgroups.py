"""A control group for each machine, so that two machines' systemds do not share one tree."""

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil

PARENT = "streampulse"
GONE_SECONDS = 15.0


def hierarchies() -> list[Path]:
    """Return the mounted hierarchies in which a machine gets a group: unified, systemd, memory and pids.

    If systemd is this host's first process, it owns the unified hierarchy and starts the machines, so the list is
    empty.
    """
    wanted = {"name=systemd", "memory", "pids"}
    return [
        Path(each.mountpoint)
        for each in psutil.disk_partitions(all=True)
        if each.fstype == "cgroup2" or (each.fstype == "cgroup" and wanted & set(each.opts.split(",")))
    ]


def booted_with_systemd() -> bool:
    """Return whether this host's first process is systemd."""
    return Path("/run/systemd/system").is_dir()


def create(name: str) -> list[Path]:
    """Make the machine's group in each hierarchy and return the files that take a pid."""
    files = []
    for hierarchy in hierarchies():
        group = hierarchy / PARENT / name
        group.mkdir(parents=True, exist_ok=True)
        files.append(group / "cgroup.procs")
    return files


def kill_and_remove(name: str) -> None:
    """End the remaining processes of the machine's groups one by one, and remove the groups.

    Returns when the processes are gone: the kernel needs a moment for a Java process with much memory.
    """
    groups = [group for group in (hierarchy / PARENT / name for hierarchy in hierarchies()) if group.is_dir()]
    deadline = time.monotonic() + GONE_SECONDS
    while pids := {pid for group in groups for pid in _members(group)}:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for group in groups:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        with contextlib.suppress(OSError):  # other machines' groups may exist
            group.parent.rmdir()


def _members(group: Path) -> set[int]:
    """Return the processes of a group and its subgroups."""
    found: set[int] = set()
    for folder, _, _ in os.walk(group):
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in (Path(folder) / "cgroup.procs").read_text(encoding="utf-8").split()}
    # 0 means a process invisible to this one; as a signal's target it is this process's own group.
    return {pid for pid in found if pid > 1}
