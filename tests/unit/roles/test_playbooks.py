"""The hosts that the playbooks visit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_runs import ANSIBLE, playbook, shown

PLAYBOOKS = sorted(file.stem for file in (ANSIBLE / "playbooks").glob("*.yml"))
Visits = dict[str, dict[str, set[str]]]
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


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Visits:
    """Return the hosts that each play of each playbook visits; ``site full`` is a full stack."""
    folder = tmp_path_factory.mktemp("inventory")
    (folder / "hosts.yml").write_text(HOSTS)
    options = ["--list-hosts", "-i", str(folder / "hosts.yml"), "-i", str(ANSIBLE / "ports")]
    said = playbook(ANSIBLE, *options, *(f"playbooks/{name}.yml" for name in PLAYBOOKS))
    full = playbook(ANSIBLE, *options, "-e", '{"full": true}', "playbooks/site.yml")
    listed = dict(zip(PLAYBOOKS, re.split(r"^playbook: .*$", said, flags=re.MULTILINE)[1:], strict=True))
    return {name: _plays(text) for name, text in {**listed, "site full": full}.items()}


def _plays(text: str) -> dict[str, set[str]]:
    found = {}
    for block in re.split(r"\n\s+play #", text)[1:]:
        name = block.partition("): ")[2].partition("\tTAGS")[0]
        found[name] = set(block.partition("):\n")[2].split())
    return found


def test_a_host_without_a_group_is_visited_to_stop_its_services(visits: Visits) -> None:
    visited = visits["site"]
    assert visited["Stop what hosts without a service still run"] == {"left", "watcher"}
    assert visited["Prepare every host"] == {"k", "m", "w", "p", "a"}
    assert visited["Set up Spark's workers"] == {"m", "w"}


def test_a_host_that_only_watches_is_prepared_in_full(visits: Visits) -> None:
    visited = visits["site full"]
    assert visited["Prepare every host"] == {"k", "m", "w", "p", "a", "watcher"}
    assert visited["Remove superseded versions"] == {"k", "m", "w", "p", "a", "watcher"}


@pytest.mark.parametrize("name", ["monitoring", "monitoring_wipe"])
def test_monitoring_visits_the_hosts_of_its_group(name: str, visits: Visits) -> None:
    prometheus = [hosts for play, hosts in visits[name].items() if "Prometheus" in play]
    assert prometheus
    assert set().union(*prometheus) == {"watcher"}


@pytest.mark.parametrize("name", ["site", "wipe"])
def test_no_service_is_set_up_or_wiped_on_other_hosts(name: str, visits: Visits) -> None:
    kafka = {play: hosts for play, hosts in visits[name].items() if play.endswith("Kafka")}
    assert kafka
    assert set().union(*kafka.values()) == {"k"}


def test_an_even_number_of_controllers_is_refused_while_nothing_is_stored(tmp_path: Path) -> None:
    (tmp_path / "stored/one").mkdir(parents=True)
    (tmp_path / "stored/one/meta.properties").touch()
    (tmp_path / "hosts.yml").write_text("kafka: {hosts: {one: {}, two: {}}}")
    checked = {"ansible.builtin.import_role": {"name": "kafka", "tasks_from": "preflight.yml"}}
    tasks = [
        {
            "block": [checked],
            "vars": {"_kafka_data": f"{tmp_path}/{folder}/{{{{ inventory_hostname }}}}"},
            "rescue": [{"ansible.builtin.set_fact": {f"refused_{folder}": True}}],
        }
        for folder in ("new", "stored")
    ]
    found = shown(
        tmp_path,
        ["-i", str(tmp_path / "hosts.yml")],
        "[refused_new | default(false), refused_stored | default(false)]",
        play={"tasks": tasks},
        variables={"streampulse_secrets": {"kafka_cluster_id": "A" * 22}},
    )
    assert found == {"one": [True, False], "two": [True, False]}
