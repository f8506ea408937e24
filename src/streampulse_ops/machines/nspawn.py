"""Local machines: systemd booted in a namespace of this kernel, without a hypervisor.

Below ``/var/lib/streampulse-machines``, ``images/`` holds the base systems and ``layers/`` the disks of prepared
machines, each over one image. ``<environment>/`` has the keys and the inventory. ``<environment>/<host>/`` is one
machine; ``upper`` has every file that it wrote.

Everything else about a machine (mount, bridge, namespace, process) exists only while it runs. The next start creates it
again, also after a reboot of this host.
"""

import contextlib
import ipaddress
import json
import os
import shutil
import signal
import time
import uuid
from pathlib import Path

from streampulse.core.errors import OperatorError
from streampulse_ops import paths
from streampulse_ops.cli.ownership import give_to_invoker
from streampulse_ops.command import CommandError, run
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.machines import Provider, Report, apt, cgroups, tools
from streampulse_ops.machines.boot import boot, ssh_answers, take_room_back
from streampulse_ops.machines.image import NAMES, SUITES, Image, check_space
from streampulse_ops.machines.layers import Layers
from streampulse_ops.machines.names import write_hosts, write_resolver
from streampulse_ops.machines.network import Network
from streampulse_ops.machines.processes import Process, recorded

TOOLS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "iptables": "iptables",
    "ssh-keygen": "openssh-client",
    "mount": "mount",
}
DEFAULT_OS = "debian13"
# The file that marks a machine as complete.
MADE = "made"
# Disk use of a machine with the base stack after a day, with room to spare.
MACHINE_BYTES = 6 * 2**30
# Files that the next machine of the same image can use: apt's packages, and the class-data archives of its JVMs, which
# reject a stale archive.
KEPT = ("var/cache/apt/archives/*.deb", "var/lib/*/*.jsa", "var/cache/*/*/*.jsa")
BOOT_SECONDS = 60.0
SHUTDOWN_SECONDS = 30.0
FIRST_ADDRESS = 11


class Nspawn(Provider):
    """The machines of one environment."""

    def __init__(self, environment: Environment, report: Report) -> None:
        """Read the settings without touching anything.

        :raises OperatorError: the inventory's machine_os or nspawn_subnet is invalid.
        """
        super().__init__(environment, report)
        self.folder = environment.state
        self.image = Image(_os_of(environment), paths.MACHINES_STATE / "images")
        self.layers = Layers(paths.MACHINES_STATE / "layers")
        self.network = Network(environment.name, _subnet_of(environment), environment.inventory)

    def describe(self) -> str:
        """Return a short description."""
        return f"nspawn, {NAMES[self.image.os]}"

    def address(self, host: Host) -> str:
        """Return the machine's address: the inventory's private_address, or the next free one of the subnet."""
        return self._addresses()[host.name]

    def _addresses(self) -> dict[str, str]:
        """Return every host's address. A machine keeps its first one."""
        known = {host.name: self._fixed_address(host) for host in self.environment.hosts}
        given = [address for address in known.values() if address]
        twice = next((address for address in given if given.count(address) > 1), None)
        if twice:
            names = " and ".join(name for name, address in known.items() if address == twice)
            raise OperatorError(
                f"{names} have the same address {twice}: give each a private_address of its own in "
                f"{self.environment.inventory}"
            )
        # A machine that the inventory no longer names keeps its address while its disk exists.
        taken = {*given, *(self._fixed_address(host) for host in self._orphans())}
        hosts = list(self.network.subnet.hosts())[FIRST_ADDRESS - 1 :]
        free = iter([str(address) for address in hosts if str(address) not in taken])
        try:
            return {name: address or next(free) for name, address in known.items()}
        except StopIteration:
            raise OperatorError(
                f"{self.network.subnet} is too small for the hosts: give a larger nspawn_subnet in "
                f"{self.environment.inventory}"
            ) from None

    def _fixed_address(self, host: Host) -> str | None:
        given = host.variables.get("private_address")
        if given:
            return str(given)
        made = self._disk(host) / "address"
        return made.read_text(encoding="utf-8").strip() if made.exists() else None

    def _orphans(self) -> list[Host]:
        """Return the existing machines that the inventory no longer names."""
        named = {host.name for host in self.environment.hosts}
        made = sorted(marker.parent.name for marker in self.folder.glob("*/image"))
        return [Host(name, frozenset()) for name in made if name not in named]

    def retire(self) -> list[Host]:
        """Stop machines that the inventory no longer names; keep their disks."""
        stopped = []
        for host in self._orphans():
            if self.stop(host):
                self.report(f"{host.name} is no longer in the inventory: it is stopped, and its disk is kept")
                stopped.append(host)
        return stopped

    def console_log(self, host: Host) -> Path | None:
        """Return the file with the console output of all boots."""
        file = self._disk(host) / "console.log"
        return file if file.exists() else None

    def running(self, host: Host) -> bool:
        """Return whether the machine's process exists."""
        return "machine" in self._processes(host)

    def create(self, host: Host) -> bool:
        """Make the machine's disk: an overlay over the image with its own identity and the environment's key."""
        self._prepare()
        if (self._disk(host) / MADE).exists():
            return False
        self.network.check_free()
        check_space(self.folder, MACHINE_BYTES, f"machine {host.name}")
        self.image.build(self.report)
        address = self.address(host)
        with contextlib.ExitStack() as undo:
            disk = self._disk(host)
            undo.callback(_remove_tree, disk)
            _remove_tree(disk)  # remains of an interrupted creation
            for name in ("upper", "work", "root"):
                (disk / name).mkdir(parents=True)
            (disk / "image").write_text(self.image.root.name, encoding="utf-8")
            layer = str(self.environment.variables.get("nspawn_layer", ""))
            if layer:
                self.layers.use(layer, self.image.root.name, disk)
            (disk / "address").write_text(address, encoding="utf-8")
            self._hand_over_kept(host)
            undo.callback(self._unmount, host)
            self._mount(host)
            self._furnish(host, address)
            self._unmount(host)
            (disk / MADE).touch()
            undo.pop_all()
        return True

    def start(self, host: Host) -> bool:
        """Boot the machine and wait for its SSH; a running one follows this host's settings."""
        self._prepare()
        if self.running(host):
            if "supervisor" in self._processes(host):
                self._follow(host)
                return False
            self.stop(host)  # its supervisor was killed: it would not survive a reboot
        self._clear(host)
        address = self.address(host)
        with contextlib.ExitStack() as undo:
            undo.callback(self._lower_network)
            self.network.raise_bridge(paths.MACHINES_STATE)
            undo.callback(self._clear, host)
            self.network.connect(host.name, address)
            self._mount(host)
            self._follow(host)
            write_hosts(self._root(host), self._addresses())
            undo.callback(self._end_processes, host)
            boot(self._unit(host), host.name, self._disk(host), self.network.namespace(host.name))
            self._wait_for_ssh(host, address)
            undo.pop_all()
        return True

    def stop(self, host: Host) -> bool:
        """Shut the machine down in order, by force after 30 s, and remove everything that is not on disk."""
        if not self._disk(host).is_dir():
            return False
        was_running = self.running(host)
        self._end_processes(host)
        self._clear(host)
        if was_running:
            self._keep(host)
        self._lower_network()
        return was_running

    def destroy(self, host: Host) -> bool:
        """Remove the machine and its disk."""
        self.stop(host)
        there = self._disk(host).is_dir()
        _remove_tree(self._disk(host))
        return there

    def commit(self, host: Host, layer: str) -> None:
        """Stop a machine, turn its disk into a layer, and remove the machine.

        Machines with ``nspawn_layer`` in the inventory are made on that layer, each with its own identity.

        :param layer: name of the layer; an existing one of this name is kept.
        """
        self.stop(host)
        self.layers.add(layer, self._disk(host))
        self.destroy(host)

    def forget(self) -> None:
        """Remove machines that the inventory no longer names, the keys and the inventory, and the network."""
        for host in self._orphans():
            self.destroy(host)
        self._lower_network()
        if not self.folder.is_dir():
            return
        for file in self.folder.iterdir():
            if file.name != "lock" and file.is_file():
                file.unlink()

    def write_inventory(self) -> Path | None:
        """Write each machine's login data."""
        arguments = f"-o UserKnownHostsFile={self.folder}/known_hosts -o StrictHostKeyChecking=yes"
        hosts = {
            host.name: {
                "ansible_host": self.address(host),
                "ansible_port": 22,
                "ansible_user": "root",
                "ansible_ssh_private_key_file": str(self.folder / "id_ed25519"),
                "ansible_ssh_common_args": arguments,
                "private_address": self.address(host),
            }
            for host in self.environment.hosts
        }
        file = self.folder / "inventory.json"
        content = json.dumps({"all": {"hosts": hosts}}, indent=2) + "\n"
        if not file.exists() or file.read_text(encoding="utf-8") != content:
            file.write_text(content, encoding="utf-8")
            give_to_invoker(file)
        return file

    def _prepare(self) -> None:
        """Check root's rights, the tools, and the environment's folder and key.

        :raises OperatorError: one of them is missing.
        """
        if os.geteuid() != 0:
            raise OperatorError("machines of provider nspawn are made by root: run the task with sudo")
        tools.ensure(TOOLS, "making machines with systemd-nspawn", self.report)
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True)
            give_to_invoker(self.folder)
        key = self.folder / "id_ed25519"
        if not key.exists():
            temporary = key.with_suffix(".new")
            temporary.unlink(missing_ok=True)
            _make_key(temporary, f"streampulse {self.folder.name}")
            temporary.with_suffix(".new.pub").replace(key.with_suffix(".pub"))
            temporary.replace(key)
            give_to_invoker(key, key.with_suffix(".pub"))

    def _disk(self, host: Host) -> Path:
        return self.folder / host.name

    def _root(self, host: Host) -> Path:
        return self._disk(host) / "root"

    def _processes(self, host: Host) -> dict[str, Process]:
        return recorded(self._disk(host) / "pid")

    def _unit(self, host: Host) -> str:
        return f"{self.environment.name}-{host.name}"

    def _mount(self, host: Host) -> None:
        disk, root = self._disk(host), self._root(host)
        if root.is_mount():
            return
        lower = self.image.folder / (disk / "image").read_text(encoding="utf-8").strip()
        if not lower.is_dir():
            raise OperatorError(
                f"the image {lower} of machine {host.name} is gone: remove and make it again with "
                f"inv down --wipe --env {self.environment.name} and inv up --env {self.environment.name}"
            )
        layers = f"lowerdir={self.layers.over(lower, disk)},upperdir={disk / 'upper'},workdir={disk / 'work'}"
        try:
            run(["mount", "-t", "overlay", "-o", layers, f"streampulse-{self._unit(host)}", root])
        except CommandError as error:
            raise OperatorError(
                f"the disk of {host.name} cannot be mounted: {error}; {paths.MACHINES_STATE} must be on a file system "
                "that overlayfs can write to, such as ext4 or xfs: mount one there. If it is, the disk is damaged: "
                f"inv down --wipe --env {self.environment.name}, then inv up --env {self.environment.name}"
            ) from None

    def _unmount(self, host: Host) -> None:
        if not self._root(host).is_mount():
            return
        # The kernel releases the files shortly after the last process has ended.
        for _ in range(50):
            with contextlib.suppress(CommandError):
                run(["umount", self._root(host)])
                return
            time.sleep(0.1)
        run(["umount", "--lazy", self._root(host)])

    def _furnish(self, host: Host, address: str) -> None:
        """Write a new machine's name, identity, SSH host key and the environment's login key."""
        root = self._root(host)
        (root / "etc/hostname").write_text(f"{host.name}\n", encoding="utf-8")
        (root / "etc/machine-id").write_text(uuid.uuid4().hex + "\n", encoding="utf-8")
        (root / "etc/default/locale").write_text("LANG=C.UTF-8\n", encoding="utf-8")
        apt.write_sources(root, SUITES[self.image.os], self.network.gateway)
        _make_key(root / "etc/ssh/ssh_host_ed25519_key", host.name)
        login = root / "root/.ssh"
        login.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(self.folder / "id_ed25519.pub", login / "authorized_keys")
        (login / "authorized_keys").chmod(0o600)
        public = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text(encoding="utf-8").split()
        self._know(address, f"{address} {public[0]} {public[1]}")

    def _follow(self, host: Host) -> None:
        """Give a machine this host's resolver and apt's proxies, which may change while it runs."""
        write_resolver(self._root(host))
        apt.write_proxies(self._root(host), self.network.gateway)

    def _know(self, address: str, line: str) -> None:
        file = self.folder / "known_hosts"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        kept = [known for known in lines if known.split()[0] != address]
        file.write_text("\n".join([*kept, line]) + "\n", encoding="utf-8")
        give_to_invoker(file)

    def _hand_over_kept(self, host: Host) -> None:
        """Hard-link the files that earlier machines fetched or made into the machine.

        Only before the first mount: the layers of a mounted overlay must not change.
        """
        upper = self._disk(host) / "upper"
        for kept in (path for pattern in KEPT for path in self.image.kept.glob(pattern)):
            target = upper / kept.relative_to(self.image.kept)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(kept, target)

    def _keep(self, host: Host) -> None:
        """Keep the newer files that this machine fetched or made for the next one."""
        upper = self._disk(host) / "upper"
        for file in (path for pattern in KEPT for path in upper.glob(pattern)):
            kept = self.image.kept / file.relative_to(upper)
            if file.is_symlink() or (kept.exists() and kept.stat().st_mtime >= file.stat().st_mtime):
                continue
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.unlink(missing_ok=True)
            os.link(file, kept)
            # User ids differ on the next machine.
            kept.chmod(0o644)

    def _wait_for_ssh(self, host: Host, address: str) -> None:
        begun = time.monotonic()
        while not ssh_answers(address):
            waited = time.monotonic() - begun
            gone = waited > 2 and "supervisor" not in self._processes(host)
            if gone or waited > BOOT_SECONDS:
                what = "ended while it booted" if gone else f"did not answer on SSH within {BOOT_SECONDS:.0f} s"
                # The log is inside the machine's folder, which stays: only the running parts are rolled back.
                raise OperatorError(
                    f"machine {host.name} {what}: see {self._disk(host) / 'console.log'}, then try again"
                )
            time.sleep(0.1)

    def _end_processes(self, host: Host) -> None:
        """End the machine: in order first, then by force, each process by its pid."""
        processes = self._processes(host)
        boss, machine = processes.get("supervisor"), processes.get("machine")
        for process in (boss, machine):
            if process:
                process.send(signal.SIGTERM)
        for process in (machine, boss):
            if process and not process.ended_within(SHUTDOWN_SECONDS):
                process.send(signal.SIGKILL)
                process.ended_within(5)
        (self._disk(host) / "pid").unlink(missing_ok=True)

    def _clear(self, host: Host) -> None:
        """Remove the remains of a stopped machine: its groups, its mount, its network."""
        if not cgroups.booted_with_systemd():
            cgroups.kill_and_remove(self._unit(host))
        self._unmount(host)
        self.network.disconnect(host.name)

    def _lower_network(self) -> None:
        """Remove the bridge when no machine of this environment runs, and shared parts that no environment needs."""
        if any(recorded(file) for file in self.folder.glob("*/pid")):
            return
        self.network.remove_bridge(paths.MACHINES_STATE)
        if not any(recorded(file) for file in paths.MACHINES_STATE.glob("*/*/pid")):
            take_room_back()


def _make_key(file: Path, comment: str) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", file])


def _os_of(environment: Environment) -> str:
    chosen = str(environment.variables.get("machine_os", DEFAULT_OS))
    if chosen not in NAMES:
        raise OperatorError(
            f"machine_os is {chosen} in {environment.inventory}, which nspawn cannot make: choose {' or '.join(NAMES)}"
        )
    return chosen


def _subnet_of(environment: Environment) -> ipaddress.IPv4Network:
    given = environment.variables.get("nspawn_subnet")
    try:
        subnet = ipaddress.IPv4Network(str(given))
    except ValueError:
        raise OperatorError(
            f"nspawn_subnet is {given} in {environment.inventory}, "
            "which is not a network: write one such as 10.77.0.0/24"
        ) from None
    if subnet.prefixlen > 27:
        raise OperatorError(f"nspawn_subnet {subnet} in {environment.inventory} is too small: use a /27 or larger")
    return subnet


def _remove_tree(folder: Path) -> None:
    if (folder / "root").is_mount():
        raise OperatorError(f"{folder / 'root'} is still mounted: umount it, then try again")
    if folder.exists():
        # Remove the completeness mark first: an interrupted removal must not leave a machine that counts as complete.
        (folder / MADE).unlink(missing_ok=True)
        shutil.rmtree(folder)
