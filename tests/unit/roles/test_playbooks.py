"""The hosts that the playbooks visit."""

import re
from pathlib import Path

import pytest
import yaml
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


def test_a_wiped_monitoring_leaves_nothing_by_which_a_look_misses_it(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(HOSTS)
    plays = yaml.safe_load((ANSIBLE / "playbooks/monitoring_wipe.yml").read_text())
    (forget,) = [play["tasks"][0] for play in plays if play["name"] == "Forget monitoring"]
    sources = ["-i", str(tmp_path / "hosts.yml"), "-i", str(ANSIBLE / "ports")]
    removed = shown(tmp_path, sources, forget["streampulse_files"]["absent"].strip(" {}\n"))["watcher"]
    services = yaml.safe_load((ANSIBLE / "services.yml").read_text())["streampulse_services"]
    monitoring = [each["name"].replace("-", "_") for each in services if each.get("full")]
    written = "".join((ANSIBLE / f"roles/{name}/vars/main.yml").read_text() for name in monitoring)
    units = set(re.findall(r"/etc/systemd/system/[\w./-]+", written))
    assert len(units) == len(monitoring)
    assert units <= set(removed)


@pytest.mark.parametrize("name", ["site", "wipe"])
def test_no_service_is_set_up_or_wiped_on_other_hosts(name: str, visits: Visits) -> None:
    kafka = {play: hosts for play, hosts in visits[name].items() if play.endswith("Kafka")}
    assert kafka
    assert set().union(*kafka.values()) == {"k"}


@pytest.mark.parametrize(
    ("hosts", "stored", "refused"),
    [
        ("one: {}, two: {}", {}, {"one", "two"}),
        ("one: {}, two: {}", {"one": (1, 2)}, set()),
        ("one: {}, two: {}, three: {}", {"one": (1, 1)}, {"one"}),
        ("one: {}, two: {kafka_node_id: 4}", {"one": (1, 1)}, set()),
        ("one: {}, two: {kafka_node_id: 1}", {"one": (1, 1)}, {"two"}),
        ("one: {}, two: {kafka_node_id: 4}, three: {kafka_node_id: 4}", {}, {"two", "three"}),
        # One host sorts before another now; a number is its storage's.
        ("b: {}, a: {}, c: {}", {"a": (2, 3), "b": (1, 3), "c": (3, 3)}, set()),
        ("b: {}, c: {}, d: {}", {"b": (2, 3), "c": (3, 3)}, {"d"}),
        ("one: {}, two: {kafka_node_id: 5}", {"one": (1, 1), "two": (4, 1)}, {"two"}),
    ],
    ids=["even", "even and old", "grown", "without a vote", "taken", "twins", "renamed", "replaced", "renumbered"],
)
def test_an_impossible_cluster_is_refused_before_anything_changes(
    tmp_path: Path, hosts: str, stored: dict[str, tuple[int, int]], refused: set[str]
) -> None:
    for host, (node, controllers) in stored.items():
        (tmp_path / host).mkdir()
        (tmp_path / host / "meta.properties").write_text(f"version=1\nnode.id={node}\n")
        (tmp_path / host / "topics.json").write_text(f'{{\n    "controllers": {controllers}\n}}\n')
    (tmp_path / "hosts.yml").write_text(f"kafka: {{hosts: {{{hosts}}}}}")
    shared = yaml.safe_load((ANSIBLE / "playbooks/group_vars/all/streampulse.yml").read_text())
    preflight = {"ansible.builtin.import_role": {"name": "kafka", "tasks_from": "preflight.yml"}}
    tasks = [
        {
            "block": [preflight],
            "vars": {
                "_kafka_data": f"{tmp_path}/{{{{ inventory_hostname }}}}",
                "_kafka_topics_file": f"{tmp_path}/{{{{ inventory_hostname }}}}/topics.json",
            },
            "rescue": [{"ansible.builtin.set_fact": {"refused": True}}],
        }
    ]
    found = shown(
        tmp_path,
        ["-i", str(tmp_path / "hosts.yml")],
        "refused | default(false)",
        play={"tasks": tasks, "any_errors_fatal": False},
        variables={
            "streampulse_secrets": {"kafka_cluster_id": "A" * 22},
            "streampulse_kafka_controllers": shared["streampulse_kafka_controllers"],
        },
    )
    assert {host for host, each in found.items() if each} == refused
