"""Which hosts the playbooks visit."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from streampulse_ops import paths
from streampulse_ops.command import program_environment
from streampulse_ops.environments import inventory

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


def plays(playbook: str, folder: Path, full: bool = False) -> dict[str, set[str]]:
    """Return the hosts that each play of a playbook visits."""
    (folder / "hosts.yml").write_text(HOSTS)
    command = [inventory.program("ansible-playbook"), "--list-hosts", "-i", str(folder / "hosts.yml")]
    command += ["-e", '{"full": true}'] * full
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


def test_a_host_that_only_watches_is_prepared_in_full(tmp_path: Path) -> None:
    visited = plays("site", tmp_path, full=True)
    assert visited["Prepare every host"] == {"k", "m", "w", "p", "a", "watcher"}
    assert visited["Remove what no release needs any more"] == {"k", "m", "w", "p", "a", "watcher"}


@pytest.mark.parametrize("playbook", ["monitoring", "monitoring_wipe"])
def test_monitoring_is_where_the_inventory_asks_for_it(playbook: str, tmp_path: Path) -> None:
    visited = plays(playbook, tmp_path)
    prometheus = [hosts for name, hosts in visited.items() if "Prometheus" in name]
    assert prometheus
    assert set().union(*prometheus) == {"watcher"}


@pytest.mark.parametrize("playbook", ["site", "wipe"])
def test_no_service_is_set_up_or_wiped_where_it_is_not_asked_for(playbook: str, tmp_path: Path) -> None:
    visited = plays(playbook, tmp_path)
    kafka = {name: hosts for name, hosts in visited.items() if name.endswith("Kafka")}
    assert kafka
    assert set().union(*kafka.values()) == {"k"}
