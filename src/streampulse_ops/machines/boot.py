"""Start nspawn detached from the terminal, on hosts with and without systemd as the first process."""

import contextlib
import os
import socket
import sys
from pathlib import Path

import psutil

from streampulse_ops.command import CommandError, program_environment, run
from streampulse_ops.machines import cgroups, supervisor


def boot(name: str, hostname: str, disk: Path, namespace: str) -> None:
    """Boot a machine under a separate supervisor, and return at once.

    :param disk: its folder; the console's output is appended to ``console.log`` there, ``pid`` names the processes.
    """
    make_room_for_nspawn()
    command = [
        "systemd-nspawn", f"--directory={disk / 'root'}", "--boot", f"--machine={name}", f"--hostname={hostname}",
        f"--network-namespace-path=/run/netns/{namespace}", "--register=no", "--keep-unit", "--resolv-conf=off",
        "--timezone=off", "--link-journal=no",
    ]  # fmt: skip
    # If the supervisor is killed, its machine shuts down in order: it must not run unsupervised.
    command = ["setpriv", "--pdeathsig", "TERM", *command]
    log = disk / "console.log"
    script = [sys.executable, "-I", supervisor.__file__, str(disk / "pid")]
    if not cgroups.booted_with_systemd():
        groups = [str(file) for file in cgroups.create(name)]
        detach([*script, *groups, "--", *command], log)
        return
    unit = [f"--unit=streampulse-{name}", "--collect", "--quiet", "--property=Delegate=yes"]
    # At a shutdown of this host only the supervisor receives the signal; it shuts the machine down in order.
    unit += ["--property=KillMode=mixed"]
    unit += [f"--property={stream}=append:{log}" for stream in ("StandardOutput", "StandardError")]
    run(["systemd-run", *unit, *script, "--", *command])


def detach(command: list[str], log: Path) -> None:
    """Start a program that outlives this process and its terminal."""
    child = os.fork()
    if child == 0:
        # Fork twice: the first process then adopts the program and reaps it at its end.
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        try:
            # Pass only these three file descriptors on.
            os.closerange(3, 1024)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 1)
            os.dup2(1, 2)
            os.chdir("/")
            os.execve(command[0], command, program_environment())  # noqa: S606 - a list, without a shell
        finally:
            os._exit(127)
    os.waitpid(child, 0)


def make_room_for_nspawn() -> None:
    """Mount a tmpfs for nspawn's run-time files if /run is on disk: a reboot's clean-up fails otherwise."""
    place = Path("/run/systemd/nspawn")
    if not _is_tmpfs(place):
        place.mkdir(parents=True, exist_ok=True)
        run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=16m", "streampulse-nspawn", place])


def take_room_back() -> None:
    """Unmount that tmpfs, unless other machines use it."""
    if any(each.device == "streampulse-nspawn" for each in psutil.disk_partitions(all=True)):
        with contextlib.suppress(CommandError):  # machines of other programs may use it
            run(["umount", "-R", "/run/systemd/nspawn"])


def _is_tmpfs(place: Path) -> bool:
    above = [each for each in psutil.disk_partitions(all=True) if place.is_relative_to(each.mountpoint)]
    # Of several mounts at one place, the last one counts; the sort is stable.
    above.sort(key=lambda each: len(each.mountpoint))
    return [each.fstype for each in above[-1:]] == ["tmpfs"]


def ssh_answers(address: str) -> bool:
    """Return whether an SSH server answers at this address."""
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            connection.settimeout(2)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
