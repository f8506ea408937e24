"""Vagrant's machines are known by the key that they had when they were made."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from streampulse_ops import machines, paths
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.machines import vagrant
from streampulse_ops.machines.vagrant import Vagrant


class World:
    """One machine behind a forwarded port, as Vagrant and ssh-keyscan show it."""

    def __init__(self) -> None:
        self.state, self.port, self.key = "not_created", 2222, "AAAA1"

    def run(self, words: list[str], **_more: Any) -> str:
        if words[0] == "ssh-keyscan":
            return f"# banner\n[127.0.0.1]:{self.port} ssh-ed25519 {self.key}\n"
        if words[1] == "status":
            return f"1,a,state,{self.state}\n"
        if words[1] == "ssh-config":
            return f"Host a\n  HostName 127.0.0.1\n  Port {self.port}\n"
        self.state = {"up": "running", "halt": "poweroff", "destroy": "not_created"}[words[1]]
        return ""


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    made = World()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(vagrant, "run", made.run)
    monkeypatch.setattr(vagrant, "which", lambda _program: "/usr/bin/vagrant")
    return made


def test_another_key_is_taken_of_a_new_machine_only(world: World, tmp_path: Path) -> None:
    host = Host("a", frozenset(), {"private_address": "192.168.56.11"})
    environment = Environment("demo", tmp_path, (host,), {"provider": "vagrant"})
    environment.state.mkdir(parents=True)
    own = Vagrant(environment, lambda _line: None)
    known = environment.state / "known_hosts"

    machines.bring_up(environment, own)
    assert known.read_text() == "[127.0.0.1]:2222 ssh-ed25519 AAAA1\n"
    machines.bring_down(environment, own)
    world.key, world.port = "BBBB2", 2200  # somebody else answers, at another port
    machines.bring_up(environment, own)
    assert known.read_text() == "[127.0.0.1]:2200 ssh-ed25519 AAAA1\n"

    own.destroy(host)
    machines.bring_up(environment, own)
    assert known.read_text() == "[127.0.0.1]:2200 ssh-ed25519 BBBB2\n"
    own.forget()
    assert list(environment.state.iterdir()) == []


def test_vagrants_listings() -> None:
    assert vagrant.machine_state("1,a,metadata,provider,libvirt\n1,a,state,running\n") == "running"
    assert vagrant.machine_state("") == "not_created"
    lines = ["Host a", "  HostName 127.0.0.1", "  User vagrant", "  Port 2222", '  IdentityFile "/k/1"', "Host b"]
    assert vagrant.ssh_hosts(lines) == {
        "a": {
            "ansible_host": "127.0.0.1",
            "ansible_user": "vagrant",
            "ansible_port": 2222,
            "ansible_ssh_private_key_file": "/k/1",
        },
        "b": {},
    }


def test_an_error_of_the_machine_readable_output_is_one_line() -> None:
    said = (
        "`vagrant status --machine-readable a` failed: 1769860000,,error-exit,Vagrant::Errors::NoDefaultProvider,"
        "No usable default provider could be found.\\n\\nInstall VirtualBox%!(VAGRANT_COMMA) or another one."
    )
    assert vagrant.plain_error(said) == "No usable default provider could be found. Install VirtualBox, or another one"
    assert vagrant.plain_error("`vagrant up a` failed: no") == "`vagrant up a` failed: no"


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        (["192.168.56.11", "192.168.56.12", "192.168.56.13"], "Vagrantfile validated successfully"),
        (["192.168.56.11", ""], "host-2 has no private_address"),
    ],
)
def test_vagrant_takes_the_vagrantfile(tmp_path: Path, addresses: list[str], said: str) -> None:
    hosts = {f"host-{n}": {"private_address": each} if each else {} for n, each in enumerate(addresses, start=1)}
    inventory = tmp_path / "hosts.yml"
    content = {"all": {"vars": {"vagrant_driver": "qemu"}, "children": {"kafka": {"hosts": hosts}}}}
    inventory.write_text(yaml.safe_dump(content), encoding="utf-8")
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=paths.repository() / "vagrant",
        env={
            **os.environ,
            "STREAMPULSE_INVENTORY": str(inventory),
            "VAGRANT_DOTFILE_PATH": str(tmp_path / "dot"),
            "VAGRANT_HOME": str(tmp_path / "home"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert said in done.stdout + done.stderr
