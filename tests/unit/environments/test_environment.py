"""Environments: what an inventory says, and what is said of one that makes no sense."""

from pathlib import Path

import pytest

from streampulse.core.errors import OperatorError
from streampulse_ops.environments import environment
from streampulse_ops.environments.environment import parse
from streampulse_ops.verbs import env

FOLDER = Path("inventories/x")


def test_groups_children_and_variables_come_together() -> None:
    made = parse(
        "x",
        FOLDER,
        {
            "all": {
                "vars": {"provider": "existing", "ansible_user": "deploy"},
                "children": {
                    "base": {
                        "children": {
                            "kafka": {"hosts": {"a": {"ansible_host": "203.0.113.1"}, "b": None}},
                            "spark_worker": {"hosts": {"b": {"cores": 4}}},
                            "generator": {"hosts": {}},
                            "api": None,
                        }
                    }
                },
            }
        },
    )
    assert [host.name for host in made.hosts] == ["a", "b"]
    assert [host.name for host in made.in_group("kafka")] == ["a", "b"]
    assert made.host("b").groups >= {"all", "base", "kafka", "spark_worker"}
    assert made.host("b").variables == {"cores": 4}
    assert made.in_group("generator") == []
    with pytest.raises(OperatorError, match=r"c is not a host of x\. There are: a, b"):
        made.host("c")


def inventory(**all_group: object) -> dict[str, object]:
    return {"all": {"vars": {"provider": "existing"}, **all_group}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "has no group `all`"),
        ([], "has no group `all`"),
        ({"all": {}}, "`provider`"),
        ({"all": {"vars": {"provider": "docker"}}}, "must be one of nspawn, vagrant, existing"),
        ({"all": {"vars": {"provider": "nspawn"}}}, "has no hosts"),
        ({"all": {"vars": {"provider": "nspawn"}, "hosts": {"Bad_Name": None}}}, "Bad_Name is not a host name"),
        ({"all": {"vars": {"provider": "nspawn"}, "hosts": {"-o": None}}}, "-o is not a host name"),
        ({"all": {"vars": ["provider"]}}, r"all\.vars must be lines of `name: value` and is a list"),
        (inventory(hosts=["a"]), "hosts of all must be lines of `name: value` and is a list"),
        (inventory(hosts={"a": "foo"}), "a in all must be lines of `name: value` and is `foo`"),
        (inventory(children={"kafka": "a"}), "group kafka must be lines of `name: value` and is `a`"),
        (inventory(children=["kafka"]), "children of all must be"),
        (inventory(children={"kafka": {"hosts": {"a": {}}, "vars": [1]}}), "vars of kafka must be"),
        (inventory(hosts={"a": {"ansible_port": "abc"}}), "a's ansible_port is abc, which is not a port"),
        (inventory(vars={"provider": "existing", "streampulse_ports": 5}), "streampulse_ports must be lines of"),
        (inventory(vars={"provider": "existing", "ansible_port": 0}), "ansible_port is 0, which is not a port"),
        (inventory(vars={"provider": "existing", "protected": "yes"}), "protected is 'yes': write true or false"),
    ],
)
def test_an_inventory_that_makes_no_sense_is_named(content: object, said: str) -> None:
    with pytest.raises(OperatorError, match=said) as caught:
        parse("x", FOLDER, content)
    assert "hosts.yml" in str(caught.value)


@pytest.fixture
def inventories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMPULSE_INVENTORIES", str(tmp_path))
    for name in ("local", "staging"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hosts.yml").write_text("all: {vars: {provider: existing}, hosts: {a: {}}}")
    return tmp_path


@pytest.mark.parametrize("name", ["stagin", "", ".", "..", "../local", "local/", "LOCAL"])
def test_an_unknown_environment_is_answered_with_those_that_there_are(inventories: Path, name: str) -> None:
    assert inventories.is_dir()
    with pytest.raises(OperatorError) as caught:
        environment.load(name)
    assert "is not an environment. There are: local, staging. A new one: inv env new" in str(caught.value)


def test_a_folder_of_inventories_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STREAMPULSE_INVENTORIES", str(tmp_path / "nowhere"))
    with pytest.raises(OperatorError, match="nowhere is no folder that can be read"):
        environment.load("local")


def test_a_group_that_contains_itself_is_named(inventories: Path) -> None:
    text = "all: &all {vars: {provider: existing}, hosts: {a: }, children: {again: *all}}"
    (inventories / "local" / "hosts.yml").write_text(text)
    with pytest.raises(OperatorError, match="has a group that contains itself"):
        environment.load("local")


@pytest.mark.parametrize("content", [b"all: {", b"all: \xff"])
def test_a_file_that_is_no_yaml_is_named(inventories: Path, content: bytes) -> None:
    (inventories / "local" / "hosts.yml").write_bytes(content)
    with pytest.raises(OperatorError, match=r"local/hosts\.yml cannot be read") as caught:
        environment.load("local")
    assert "\n" not in str(caught.value)


def test_a_new_environment_can_be_loaded_and_is_made_once(inventories: Path) -> None:
    file = env.new("mine")
    assert file == inventories / "mine" / "hosts.yml"
    assert environment.load("mine").provider == "existing"
    with pytest.raises(OperatorError, match="mine is an environment already"):
        env.new("mine")
    for wrong in ("Mine", "a/b", "../x", "-x", ""):
        with pytest.raises(OperatorError, match="lower-case letters"):
            env.new(wrong)
    for reserved in environment.RESERVED:
        with pytest.raises(OperatorError, match="the machines' own files are called so"):
            env.new(reserved)
    assert sorted(path.name for path in inventories.iterdir()) == ["local", "mine", "staging"]


def test_an_environment_may_not_share_the_images_folder(inventories: Path) -> None:
    (inventories / "local").rename(inventories / "images")
    with pytest.raises(OperatorError, match=r"'images' is not a name for an environment: .*; rename .*/images"):
        environment.load("images")
