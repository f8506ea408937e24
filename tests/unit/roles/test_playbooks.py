"""Which hosts the playbooks visit."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from streampulse.ops import inventory, paths
from streampulse.ops.command import program_environment

HOSTS = """\
all:
  vars: {provider: existing}
  hosts: {left: {}}
  children:
    monitoring: {hosts: {watcher: {}}}
    kafka: {hosts: {k: {}}}
    spark_master: {hosts: {m: {}}}
    spark_worker: {hosts: {m: {}, w: {}}}
    postgres: {hosts: {p: {}}}
    api: {hosts: {a: {}}}
    generator: {hosts: {}}
"""


def plays(playbook: str, folder: Path) -> dict[str, set[str]]:
    """Return the hosts that each play of a playbook visits."""
    (folder / "hosts.yml").write_text(HOSTS)
    command = [inventory.program("ansible-playbook"), "--list-hosts", "-i", str(folder / "hosts.yml")]
    done = subprocess.run(
        [*command, f"playbooks/{playbook}.yml"],
        cwd=paths.repository() / "ansible",
        env=program_environment(inventory.configuration()),
        capture_output=True,
        text=True,
        check=True,
    )
    found = {}
    for block in re.split(r"\n\s+play #", done.stdout)[1:]:
        name = block.partition("): ")[2].partition("\tTAGS")[0]
        found[name] = set(block.partition("):\n")[2].split())
    return found


def test_a_host_without_a_group_is_visited_to_stop_what_it_still_runs(tmp_path: Path) -> None:
    visited = plays("site", tmp_path)
    assert visited["Stop what hosts without a service still run"] == {"left", "watcher"}
    assert visited["Prepare every host"] == {"k", "m", "w", "p", "a"}
    assert visited["Set up Spark's workers"] == {"m", "w"}


@pytest.mark.parametrize("playbook", ["site", "start", "stop", "wipe"])
def test_no_service_is_set_up_started_stopped_or_wiped_where_it_is_not_asked_for(playbook: str, tmp_path: Path) -> None:
    visited = plays(playbook, tmp_path)
    kafka = {name: hosts for name, hosts in visited.items() if name.endswith("Kafka")}
    assert kafka
    assert set().union(*kafka.values()) == {"k"}
