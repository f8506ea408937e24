"""Machines of provider nspawn, really booted: two side by side, reboot, crash, and nothing left."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from streampulse.core.errors import OperatorError
from streampulse_ops import machines
from streampulse_ops.environments import environment as environments
from streampulse_ops.environments.environment import Environment
from streampulse_ops.machines import network, nspawn
from streampulse_ops.machines.nspawn import Nspawn

pytestmark = pytest.mark.machines

SUBNET = "10.79.3.0/24"


@pytest.fixture
def pair(bootable: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:  # noqa: ARG001
    monkeypatch.setenv("STREAMPULSE_INVENTORIES", str(tmp_path))
    (tmp_path / "pair").mkdir()
    hosts = json.dumps(
        {"all": {"vars": {"provider": "nspawn", "nspawn_subnet": SUBNET}, "hosts": {"pa": {}, "pb": {}}}}
    )
    (tmp_path / "pair" / "hosts.yml").write_text(hosts)
    environment = environments.load("pair")
    try:
        yield environment
    finally:
        monkeypatch.undo()
        machines.remove(environment, provider(environment))
        shutil.rmtree(environment.state)


def provider(environment: Environment) -> Nspawn:
    return Nspawn(environment, lambda _line: None)


def ssh(environment: Environment, address: str, command: str) -> str:
    state = environment.state
    options = [
        "-q", "-i", f"{state}/id_ed25519", "-o", f"UserKnownHostsFile={state}/known_hosts", "-o", "BatchMode=yes",
    ]  # fmt: skip
    return subprocess.run(
        ["ssh", *options, f"root@{address}", command], capture_output=True, text=True, timeout=30, check=True
    ).stdout.strip()


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return True
        except subprocess.SubprocessError:
            pass
        time.sleep(0.3)
    return False


def traces() -> list[str]:
    """Return an environment's machine parts on this host beside files."""
    found = [line for line in Path("/proc/self/mounts").read_text().splitlines() if "streampulse-pair" in line]
    asked = (["ip", "netns"], ["ip", "-o", "link"], ["iptables-save"], ["ps", "-eo", "args"])
    for command in asked:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        found += [line for line in listed if "sp-pair" in line or "pair.pa" in line or "pair-pa" in line]
    return found


def test_two_machines_live_through_reboot_and_crash_and_leave_nothing(pair: Environment) -> None:
    own = provider(pair)
    assert [host.name for host in machines.bring_up(pair, own)] == ["pa", "pb"]
    first, second = pair.hosts
    assert machines.bring_up(pair, own) == []
    # They resolve each other's names to the private addresses, and reach the outside.
    assert ssh(pair, own.address(first), "getent hosts pb").split() == [own.address(second), "pb"]
    assert ssh(pair, own.address(first), "getent hosts pa").split()[0] == own.address(first)
    assert ssh(pair, own.address(second), "ip route get 192.0.2.1").startswith("192.0.2.1 via 10.79.3.1")
    # Each has its own identity.
    identity = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub"
    assert ssh(pair, own.address(first), identity) != ssh(pair, own.address(second), identity)
    assert ssh(pair, own.address(first), "systemctl is-system-running --wait") == "running"

    # A reboot from inside: other processes, the same disk, without the tasks' help.
    ssh(pair, own.address(first), "echo kept > /root/file; touch /run/before")
    ssh(pair, own.address(first), "systemctl reboot --no-block")
    assert within(30, lambda: ssh(pair, own.address(first), "test -e /run/before || cat /root/file") == "kept")

    # A crash: the machine's process is gone; the next start restores it with its disk.
    os.kill(own._processes(first)["machine"].pid, signal.SIGKILL)
    assert within(10, lambda: not own.running(first))  # its processes may still be ending: no wait for them here
    assert own.running(second)
    assert [host.name for host in machines.bring_up(pair, own)] == ["pa"]
    assert ssh(pair, own.address(first), "cat /root/file") == "kept"

    assert [host.name for host in machines.bring_down(pair, own)] == ["pb", "pa"]
    assert machines.bring_down(pair, own) == []
    assert traces() == []
    assert [host.name for host in machines.remove(pair, own)] == ["pb", "pa"]
    assert list(pair.state.iterdir()) == []


def test_a_machine_that_does_not_boot_is_taken_back(pair: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    own = provider(pair)
    own.create(pair.hosts[0])
    monkeypatch.setattr(nspawn, "boot", lambda *_arguments: None)
    with pytest.raises(OperatorError, match=r"machine pa ended while it booted: see .*console\.log"):
        own.start(pair.hosts[0])
    assert traces() == []
    monkeypatch.undo()
    assert own.start(pair.hosts[0])


def test_a_full_disk_is_said_before_anything_is_made(pair: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _place: SimpleNamespace(free=1))
    with pytest.raises(OperatorError, match=r"0\.0 GiB free and machine pa needs 6 GiB"):
        provider(pair).create(pair.hosts[0])
    assert not (pair.state / "pa").exists()


def test_an_interrupted_creation_is_rolled_back_and_repeated(
    pair: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = provider(pair)

    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Nspawn, "_furnish", interrupt)
    with pytest.raises(KeyboardInterrupt):
        own.create(pair.hosts[0])
    assert not (pair.state / "pa").exists()
    assert traces() == []
    monkeypatch.undo()
    assert own.create(pair.hosts[0])


def test_a_taken_network_is_said_before_anything_is_made(pair: Environment, tmp_path: Path) -> None:
    other = network.Network("other", provider(pair).network.subnet, Path("other"))
    other.raise_bridge(tmp_path)
    try:
        with pytest.raises(OperatorError, match=r"10\.79\.3\.0/24 is in use already by interface sp-other"):
            provider(pair).create(pair.hosts[0])
    finally:
        other.remove_bridge(tmp_path)
    assert not (pair.state / "pa").exists()
