"""The names that a machine knows: written by the provider at each start, and by the base role in the same words."""

import json
from pathlib import Path

import pytest
import yaml
from ansible_runs import ANSIBLE, playbook

from streampulse_ops import paths
from streampulse_ops.machines.names import _nameservers, write_hosts

ADDRESSES = {"b-2": "10.99.0.12", "a": "10.99.0.11", "b-10": "10.99.0.13"}


def test_the_role_changes_nothing_in_the_providers_file(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    write_hosts(tmp_path, ADDRESSES)
    tasks = yaml.safe_load((paths.repository() / "ansible/roles/base/tasks/configure.yml").read_text())
    (task,) = [task for task in tasks if "ansible.builtin.blockinfile" in task]
    task["ansible.builtin.blockinfile"]["path"] = str(tmp_path / "etc" / "hosts")
    hosts = {name: {"private_address": address, "ansible_connection": "local"} for name, address in ADDRESSES.items()}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{"hosts": "a", "gather_facts": False, "tasks": [task]}]))
    before = (tmp_path / "etc" / "hosts").read_text()
    assert before.index("10.99.0.11 a\n") < before.index("10.99.0.13 b-10\n") < before.index("10.99.0.12 b-2\n")
    said = playbook(ANSIBLE, "-i", str(tmp_path / "hosts.json"), str(tmp_path / "play.yml"))
    assert "changed=0" in said
    assert (tmp_path / "etc" / "hosts").read_text() == before


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nameserver\t127.0.0.53\n", ["127.0.0.53"]),
        ("  nameserver 2606:4700:4700::1111", ["2606:4700:4700::1111"]),
        ("# 127.0.0.1 is a stub\nnameserver 192.0.2.1 # not 127.0.0.1\n", ["192.0.2.1"]),
        ("nameserver fe80::1%eth0\nsearch nameserver", ["fe80::1%eth0"]),
    ],
)
def test_nameservers_are_read_as_resolv_conf_has_them(text: str, found: list[str]) -> None:
    assert [str(address) for address in _nameservers(text)] == found
