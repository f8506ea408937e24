"""Machines of an nspawn environment: those of the inventory, and those that it no longer names."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_commands import FakeCommands

from streampulse.core.errors import OperatorError
from streampulse_ops import machines, paths
from streampulse_ops.command import CommandError
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.machines import apt, cgroups, names, network, supervisor
from streampulse_ops.machines.nspawn import Nspawn

SAID: list[str] = []


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """Machines ``a`` and ``old`` were made; of ``old`` a process runs."""
    monkeypatch.setattr(paths, "MACHINES_STATE", tmp_path)
    monkeypatch.setattr(network, "NAMESPACES", tmp_path / "netns")
    monkeypatch.setattr(network, "run", FakeCommands({"ip -json link show": "[]", "iptables": CommandError("")}))
    monkeypatch.setattr(cgroups, "booted_with_systemd", lambda: True)
    (tmp_path / "images").mkdir()
    SAID.clear()
    for name, address in (("a", "10.99.0.12"), ("old", "10.99.0.11")):
        folder = tmp_path / "demo" / name
        folder.mkdir(parents=True)
        (folder / "image").write_text("debian13")
        (folder / "address").write_text(address)
    with subprocess.Popen(["sleep", "600"]) as process:
        entry = {"pid": process.pid, "started": supervisor.started_at(process.pid)}
        (tmp_path / "demo" / "old" / "pid").write_text(json.dumps({"supervisor": entry, "machine": entry}))
        yield process
        process.kill()


def provider(*hosts: Host) -> Nspawn:
    variables = {"provider": "nspawn", "nspawn_subnet": "10.99.0.0/24"}
    environment = Environment("demo", Path("inventories/demo"), hosts, variables)
    return Nspawn(environment, SAID.append)


A, B, OLD = (Host(name, frozenset({"kafka"})) for name in ("a", "b", "old"))


def test_a_new_machine_does_not_get_the_address_of_one_that_is_no_longer_named(old: object) -> None:
    assert old
    own = provider(A, B)
    assert [own.address(host) for host in (A, B)] == ["10.99.0.12", "10.99.0.13"]
    own = provider(A, B, OLD)  # it is named again
    assert [own.address(host) for host in (A, B, OLD)] == ["10.99.0.12", "10.99.0.13", "10.99.0.11"]


def test_two_machines_with_one_address_are_refused(old: object) -> None:
    assert old
    taken = replace(B, variables={"private_address": "10.99.0.12"})
    with pytest.raises(OperatorError, match=r"a and b have the same address 10\.99\.0\.12: give each a"):
        provider(A, taken).address(A)


def test_a_machine_without_an_inventory_entry_is_stopped_and_kept(old: subprocess.Popen[bytes], tmp_path: Path) -> None:
    own = provider(A)
    assert own.running(OLD)
    assert machines.bring_down(own.environment, own) == [Host("old", frozenset())]
    assert old.wait(10) == -15
    assert SAID == ["old is no longer in the inventory: it is stopped, and its disk is kept"]
    assert (tmp_path / "demo" / "old" / "address").exists()
    assert machines.bring_down(own.environment, own) == []


def test_it_is_stopped_before_others_are_made(old: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    own = provider(A)
    seen: list[int | None] = []
    monkeypatch.setattr(own, "create", lambda _host: seen.append(old.poll()))
    monkeypatch.setattr(own, "start", lambda _host: False)
    monkeypatch.setattr(own, "write_inventory", lambda: None)
    machines.bring_up(own.environment, own)
    assert seen == [-15]


def test_a_running_machine_gets_the_present_resolver(
    old: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert old
    resolver, etc = tmp_path / "resolv.conf", tmp_path / "demo/old/root/etc"
    monkeypatch.setattr(names, "RESOLVERS", (resolver,))
    monkeypatch.setattr(apt, "run", FakeCommands())
    etc.mkdir(parents=True)
    own = provider(OLD)
    monkeypatch.setattr(own, "_prepare", lambda: None)
    for text in ("nameserver 192.0.2.1\n", "nameserver 192.0.2.2\n"):
        resolver.write_text(text)
        assert not own.start(OLD)
        assert (etc / "resolv.conf").read_text() == text
