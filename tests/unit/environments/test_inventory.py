"""What Ansible really makes of an inventory: shared defaults lose against it, and ports are laid over each other."""

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_runs import ANSIBLE, playbook, shown

from streampulse.core.errors import OperatorError
from streampulse_ops import paths, services
from streampulse_ops.environments import environment, inventory, secrets
from streampulse_ops.environments.environment import Environment
from streampulse_ops.hosts import links, ssh


@pytest.fixture
def inventories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMPULSE_INVENTORIES", str(tmp_path / "inventories"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "inventories"


def demo(inventories: Path, variables: dict[str, Any], **hosts: dict[str, Any]) -> Environment:
    folder = inventories / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    groups = {name: {"hosts": hosts or {"h": {}}} for name in ("kafka", "spark_master", "api")}
    content = {
        "all": {
            "vars": {"provider": "existing", "streampulse_artifacts": {"wheels": {}}, **variables},
            "children": groups,
        }
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump(content))
    return environment.load("demo")


def seen(made: Environment, host: int = 0) -> dict[str, Any]:
    return dict(inventory.variables(made, made.hosts[host]))


def test_what_all_vars_say_wins_over_the_shared_defaults(inventories: Path) -> None:
    made = demo(
        inventories,
        {"streampulse_topic_partitions": 8, "private_address": "192.0.2.7", "streampulse_ports": {"kafka": 19092}},
    )
    found = seen(made)
    assert found["streampulse_topic_partitions"] == 8
    assert found["private_address"] == "192.0.2.7"
    assert found["streampulse_dlq_topic"] == "stream.events.dlq"  # what is not set keeps its default
    # The API of existing hosts is public: the edge has its port.
    expected = {"kafka": 19092, "edge": found["streampulse_default_ports"]["api"], "api": 8001}
    assert found["streampulse_ports"] == {**found["streampulse_default_ports"], **expected}


def test_groups_hosts_and_folders_of_variables_win_too(inventories: Path) -> None:
    made = demo(inventories, {"streampulse_topic_partitions": 8}, h={"streampulse_topic": "mine"})
    (inventories / "demo" / "group_vars").mkdir()
    (inventories / "demo" / "group_vars" / "kafka.yml").write_text("streampulse_dlq_topic: letters\n")
    (inventories / "demo" / "group_vars" / "all.yml").write_text("streampulse_ports: {api: 8080}\n")
    found = seen(made)
    names = ("streampulse_topic_partitions", "streampulse_topic", "streampulse_dlq_topic")
    assert [found[name] for name in names] == [8, "mine", "letters"]
    assert found["streampulse_ports"] == {**found["streampulse_default_ports"], "edge": 8080, "api": 8001}


def test_a_plain_inventory_says_how_to_connect_without_ansible(
    inventories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "_evaluated", lambda *_asked: pytest.fail("Ansible was asked without need"))
    made = demo(inventories, {"ansible_user": "admin"}, h={}, i={"ansible_user": "root"})
    # An editor's swap file is no text.
    (made.folder / "group_vars").mkdir()
    (made.folder / "group_vars" / ".all.yml.swp").write_bytes(b"\xff\x00")
    assert [ssh.login(made, host).user for host in made.hosts] == ["admin", "root"]


def test_a_connection_is_as_ansible_evaluates_it(inventories: Path) -> None:
    made = demo(inventories, {"ansible_user": "admin"}, h={}, i={"ansible_user": "root"})
    (made.folder / "group_vars").mkdir()
    variables = {"ansible_user": "{{ who }}", "who": "deploy", "ansible_port": 2200, "ansible_ssh_args": "-C"}
    (made.folder / "group_vars" / "kafka.yml").write_text(yaml.safe_dump(variables))
    logins = [ssh.login(made, host) for host in made.hosts]
    assert [(each.user, each.port, each.address) for each in logins] == [("deploy", 2200, "h"), ("root", 2200, "i")]
    assert logins[0].options == ("-C",)


def test_a_connection_that_ansible_cannot_evaluate_is_named(inventories: Path) -> None:
    made = demo(inventories, {"ansible_user": "{{ missing }}"}, h={})
    with pytest.raises(OperatorError, match=r"hosts\.yml does not make sense to Ansible: .*'missing' is undefined; "):
        ssh.login(made, made.hosts[0])


def test_variables_of_a_group_in_the_inventory_count_for_a_connection(inventories: Path) -> None:
    made = demo(inventories, {"ansible_port": "{{ 2000 + 22 }}"}, j={})
    content = yaml.safe_load(made.inventory.read_text())
    content["all"]["children"]["kafka"]["vars"] = {"ansible_ssh_common_args": "-J bastion"}
    made.inventory.write_text(yaml.safe_dump(content))
    made = environment.load("demo")
    assert ssh.login(made, made.hosts[0]).command()[-5:] == ["-p", "2022", "-J", "bastion", "j"]


def test_the_tasks_use_the_ports_and_addresses_that_are_in_force(inventories: Path) -> None:
    made = demo(inventories, {"streampulse_ports": {"api": 8080}}, h={"ansible_host": "192.0.2.1"})
    assert services.port(made, "edge") == 8080
    assert services.port(made, "kafka") == 9092
    assert links.address(made, "api") == "http://192.0.2.1:8080/"
    assert "127.0.0.1:8080:192.0.2.1:8080" in links.tunnel(made, "api")[0]
    made = demo(inventories, {}, inside={"ansible_host": "192.0.2.1", "private_address": "198.51.100.1"})
    assert "127.0.0.1:8000:198.51.100.1:8000" in links.tunnel(made, "api")[0]


def test_a_page_that_is_off_names_the_setting_that_turns_it_on(inventories: Path) -> None:
    made = demo(inventories, {}, h={"ansible_host": "192.0.2.1"})
    inventory._variables.cache_clear()
    with pytest.raises(OperatorError, match=r"spark-job is off: write job_ui: true under all\.vars"):
        links.address(made, "spark-job")
    made = demo(inventories, {"job_ui": True}, h={"ansible_host": "192.0.2.1"})
    inventory._variables.cache_clear()
    assert links.address(made, "spark-job") == "http://192.0.2.1:4040/"


@pytest.mark.parametrize(
    ("listens", "target", "address", "only_there"),
    [
        ({}, "192.0.2.1", "192.0.2.1", False),
        ({"api_listen_address": "127.0.0.1"}, "127.0.0.1", "127.0.0.1", True),
        ({"api_listen_address": "198.51.100.1"}, "198.51.100.1", "198.51.100.1", False),
    ],
)
def test_the_api_is_asked_where_it_listens(
    inventories: Path, listens: dict[str, str], target: str, address: str, only_there: bool
) -> None:
    made = demo(inventories, {"api_public": False, **listens}, h={"ansible_host": "192.0.2.1"})
    inventory._variables.cache_clear()
    assert links.address(made, "api") == f"http://{address}:8000/"
    assert f"127.0.0.1:8000:{target}:8000" in links.tunnel(made, "api")[0]
    assert links.only_there(made) is only_there


def test_every_host_of_the_api_is_known_where_it_listens(inventories: Path, tmp_path: Path) -> None:
    made = demo(
        inventories, {"api_public": False}, h={"ansible_host": "192.0.2.1", "api_listen_address": "198.51.100.1"},
        i={"ansible_host": "192.0.2.2"}, j={"private_address": "192.0.2.3"}, k={"api_listen_address": "127.0.0.1"},
    )  # fmt: skip
    known = ",".join(f"http://{address}:8000" for address in ("198.51.100.1", "192.0.2.2", "192.0.2.3", "127.0.0.1"))
    found = seen_by_ansible(made, tmp_path, "[streampulse_api_address, streampulse_api_urls]")
    assert found == {host: ["198.51.100.1", known] for host in "hijk"}


def test_an_api_that_only_its_own_host_can_ask_must_be_where_it_is_asked(inventories: Path, tmp_path: Path) -> None:
    made = demo(inventories, {"api_listen_address": "127.0.0.1"}, h={})
    content = yaml.safe_load(made.inventory.read_text())
    content["all"]["children"]["spark_master"] = {"hosts": {"m": {}}}
    made.inventory.write_text(yaml.safe_dump(content))
    said = problems(environment.load("demo"), tmp_path)
    assert "the API listens on its own host h only and is asked from this one" in said["m"]
    assert "the API listens" not in said["h"]


def test_ports_that_are_none_are_named(inventories: Path) -> None:
    with pytest.raises(OperatorError, match=r"streampulse_ports\.kafka is http in .*demo/hosts\.yml"):
        services.port(demo(inventories, {"streampulse_ports": {"kafka": "http"}}, a={}), "kafka")
    with pytest.raises(OperatorError, match=r"demo/hosts\.yml: streampulse_ports must be lines of"):
        services.port(demo(inventories, {"streampulse_ports": "all of them"}, b={}), "api")


def seen_by_ansible(made: Environment, folder: Path, expression: str, **variables: Any) -> dict[str, Any]:
    """Return what an expression becomes on each host, once the base role has looked at it."""
    play = {"tasks": [{"ansible.builtin.import_role": {"name": "base", "tasks_from": "facts.yml"}}]}
    # What an environment has before a play begins: the secrets that a full stack wants are among them.
    variables = {"streampulse_secrets": secrets.generate(), **variables}
    return shown(folder, inventory.sources(made), expression, play=play, variables=variables)


def problems(made: Environment, folder: Path, **variables: Any) -> dict[str, str]:
    """Return what the checks of the roles have against each host; all of them are this machine."""
    checks = yaml.safe_load((paths.repository() / "ansible/playbooks/check.yml").read_text())[0]
    (folder / "checks.yml").write_text(yaml.safe_dump([{**checks, "become": False, "ignore_errors": True}]))
    if not (folder / "group_vars").exists():
        (folder / "group_vars").symlink_to(ANSIBLE / "playbooks/group_vars")
    extra = {"ansible_connection": "local", "streampulse_secrets": secrets.generate(), **variables}
    said = playbook(ANSIBLE, *inventory.sources(made), "-e", json.dumps(extra), str(folder / "checks.yml"))
    found = dict.fromkeys(re.findall(r"^([\w-]+) +: ok=", said, re.MULTILINE), "")
    for host, message in re.findall(r"\[([\w-]+)\](?:: FAILED!| \(item=.*?\)) => .*?\"msg\": \"(.*)\"", said):
        found[host] += message + "; "
    return found


def test_an_occupied_port_is_refused_and_another_number_is_accepted(inventories: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours, socket.create_server(("127.0.0.1", 0)) as free:
        taken, other = ours.getsockname()[1], free.getsockname()[1]
        free.close()
        ports = {name: {"streampulse_ports": {"kafka": port}} for name, port in (("h", taken), ("i", other))}
        said = problems(demo(inventories, {}, **ports), tmp_path)
        assert f"port {taken} (kafka.service) is held by" in said["h"]
        assert f"process {os.getpid()}: stop it, or give the port another number in the inventory" in said["h"]
        assert "is held by" not in said["i"]


BAD_PORTS = {
    "unknown": ({"kafak": 1}, "streampulse_ports has no kafak: the names are in ansible/ports/defaults.yml"),
    "large": ({"kafka": 70000}, "write numbers from 1 to 65535"),
    "word": ({"kafka": "http"}, "write numbers from 1 to 65535"),
    "twice": ({"kafka": 8000}, "two services have the same port"),
}
BAD_ADDRESSES = {
    "wrong": ("192.0.2.300", "its private_address 192.0.2.300 is neither an address nor a host name"),
    "six": ("2001:db8::1", "give a name that stands for it, or an IPv4 address"),
}
GOOD_ADDRESSES = {"dns": {"private_address": "db.example.org"}, "four": {"ansible_host": "192.0.2.1"}, "alias": {}}


def test_what_makes_no_sense_is_refused_before_anything_is_changed(inventories: Path, tmp_path: Path) -> None:
    hosts: dict[str, dict[str, Any]] = {name: {"streampulse_ports": ports} for name, (ports, _) in BAD_PORTS.items()}
    hosts |= {name: {"private_address": address} for name, (address, _) in BAD_ADDRESSES.items()}
    wheels = {"cp0": {"machine": "odd"}, "cp1": {"machine": os.uname().machine}}
    hosts |= {
        name: {"streampulse_platform": {"python": python}, "streampulse_artifacts": {"wheels": wheels}}
        for name, python in (("foreign", "cp0"), ("native", "cp1"))
    }
    found = problems(demo(inventories, {}, **hosts, **GOOD_ADDRESSES), tmp_path)
    assert f"its processor is {os.uname().machine} and the wheels are for another" in found["foreign"]
    assert "its processor" not in found["native"]
    for name, (_, said) in {**BAD_PORTS, **BAD_ADDRESSES}.items():
        assert said in found[name], name
    for name in GOOD_ADDRESSES:
        assert "its private_address" not in found[name], name
        # That is all that is wrong with it.
        assert "hosts differ in streampulse_ports: set it under all.vars" in found[name]


def test_what_an_environment_cannot_have_is_refused_by_name(inventories: Path, tmp_path: Path) -> None:
    made = demo(inventories, {"api_settings": {"workers": 8, "pool_size": 8, "title": "two\nlines"}}, h={}, i={})
    content = yaml.safe_load(made.inventory.read_text())
    content["all"]["children"] |= {name: {"hosts": {"h": {}, "i": {}}} for name in ("postgres", "spark_master")}
    made.inventory.write_text(yaml.safe_dump(content))
    hostile = {
        "api_key": "a,b",
        "monitoring_password": "a\nb",
        "postgres_reader_password": " a",
        "grafana_secret_key": "${a}",
    }
    said = problems(environment.load("demo"), tmp_path, streampulse_secrets={**secrets.generate(), **hostile})["h"]
    for text in (
        "the group postgres has 2 hosts (h, i)",
        "the group spark_master has 2 hosts (h, i)",
        "the group kafka has 2 controllers (h, i)",
        "max_connections of PostgreSQL is 50 and 171 are needed (api 160 + job 3 ",
        "h: api_settings.title: a line end or another control character is in the value",
        *(f"{name} holds a" for name in ("api_key", "monitoring_password")),
        "postgres_reader_password begins or ends with a blank",
        "grafana_secret_key holds ${",
    ):
        assert text in said
    assert not any(value in said for value in ("a,b", "{a}"))


def test_a_postgresql_of_somebody_else_and_an_upgraded_host_are_refused(inventories: Path, tmp_path: Path) -> None:
    made = demo(inventories, {}, other={"ours": False}, upgraded={"ours": True})
    content = yaml.safe_load(made.inventory.read_text())
    content["all"]["children"]["postgres"] = {"hosts": {"other": {}, "upgraded": {}}}
    made.inventory.write_text(yaml.safe_dump(content))
    facts = {"release": "trixie", "clusters": ["15/main"]}
    mark = {"stat": {"exists": "{{ ours }}"}}
    found = problems(environment.load("demo"), tmp_path, base_facts=facts, __postgres_mark=mark)
    assert "it runs another application's PostgreSQL (15/main)" in found["other"]
    assert "pg_upgradecluster" not in found["other"]
    assert "pg_dropcluster --stop 17 main if that is empty, then pg_upgradecluster 15 main" in found["upgraded"]
    assert "another application" not in found["upgraded"]


def test_old_versions_are_removed_when_a_third_has_come(inventories: Path, tmp_path: Path) -> None:
    there = {"one": ["kafka/a"], "two": ["kafka/a", "release/a"], "again": ["kafka/a", "kafka/c"]}
    there |= {"three": ["kafka/a", "kafka/b", "release/a"]}
    hosts = {name: {"there": sets} for name, sets in there.items()}
    artifacts = {"wheels": {"cp313": {"digest": "c"}}, "kafka": {"digest": "c"}, "release": {"digest": "c"}}
    made = demo(inventories, {"streampulse_artifacts": artifacts}, **hosts)
    probe = {"release": "trixie", "artifacts": "{{ there }}"}
    found = seen_by_ansible(made, tmp_path, "[_base_sets_in_use.kafka, _base_sets_are_many]", base_facts=probe)
    assert found == {"one": ["c", False], "two": ["c", False], "again": ["c", False], "three": ["c", True]}


def test_molecule_reads_the_same_variables() -> None:
    root = paths.repository()
    configuration = yaml.safe_load((root / ".config/molecule/config.yml").read_text())
    listed = configuration["ansible"]["executor"]["args"]["ansible_playbook"]
    role = root / "ansible/roles/kafka"
    files = [Path(word.partition("=")[2].replace("${MOLECULE_PROJECT_DIRECTORY}", str(role))) for word in listed]
    options = [word for file in files if file.name != "inventory.json" for word in ("-i", str(file))]
    found = inventory._variables((*options, "--playbook-dir", str(root / "ansible/molecule")), "sp-molecule")
    assert found["streampulse_topic_partitions"] == 4
    assert found["streampulse_ports"]["kafka"] == 9092
