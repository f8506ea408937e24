"""Ansible's events, and the lines that sum them up."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from streampulse_ops import ansible, paths
from streampulse_ops.cli.console import Screen, took
from streampulse_ops.command import program_environment
from streampulse_ops.environments import inventory
from streampulse_ops.environments.environment import Environment, Host


def event(kind: str, part: str, **more: Any) -> dict[str, Any]:
    return {"event": kind, "part": part, "task": "Do it", "host": "h", **more}


def test_each_role_is_one_line_with_its_changes(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ansible.Progress(Screen())
    for kind, part in [
        ("task", "spark_master"),
        ("changed", "spark_master"),
        ("changed", "spark_master"),
        ("task", "kafka"),
        ("ok", "kafka"),
    ]:
        progress.take(event(kind, part))
    progress.leave()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [["spark-master", "2", "changed"], ["kafka", "as", "it"]]
    assert progress.changed == 2


def test_one_line_in_all_when_it_has_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ansible.Progress(Screen(), "services")
    for part in ("Stop Kafka", "Stop PostgreSQL"):
        progress.take(event("task", part))
        progress.take(event("changed", part))
    progress.leave()
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [["services", "2"]]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return Environment("demo", Path("inventories/demo"), (Host("h", frozenset()),), {"provider": "existing"})


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([event("failed", "kafka", msg="port 9092 is taken")], "kafka on h: Do it: port 9092 is taken"),
        ([event("failed", "a", msg="x"), event("failed", "base", msg="the end")], "base on h: Do it: the end"),
        ([event("unreachable", "base", msg="no route")], "h cannot be reached: no route"),
        ([], "playbook syntax is wrong"),
    ],
)
def test_a_failure_names_task_host_reason_and_log(
    environment: Environment, tmp_path: Path, events: list[dict[str, Any]], said: str
) -> None:
    log = tmp_path / "site.log"
    log.write_text("...\nplaybook syntax is wrong\n\n")
    progress = ansible.Progress(Screen())
    for one in events:
        progress.take(one)
    text = ansible.failure(progress, "site", log, environment, 2, 3.0)
    assert said in text
    assert str(log) in text
    assert "\n" not in text


SAYING = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.set_stats: {data: {streampulse_missing: "{{ {inventory_hostname: 'gone'} }}"}}
"""


def played(folder: Path, play: str, hosts: str, playbook: str) -> subprocess.Popen[str]:
    """Start a play as ``playbook`` on these hosts, all of them this machine; its events are in ``folder/progress``."""
    (folder / "play.yml").write_text(play)
    (folder / "hosts.yml").write_text(f"all: {{hosts: {{{hosts}}}, vars: {{ansible_connection: local}}}}")
    words = [inventory.program("ansible-playbook"), "-i", str(folder / "hosts.yml"), str(folder / "play.yml")]
    surroundings = program_environment(ansible.playbook_environment(playbook, folder / "progress"))
    # A shell stands for the task that runs it.
    started = ["sh", "-c", '"$@" & wait $!', "sh", *words]
    return subprocess.Popen(started, env=surroundings, stdout=subprocess.PIPE, text=True)


def test_statistics_of_tasks_reach_the_caller(tmp_path: Path) -> None:
    with played(tmp_path, SAYING, "one: , two: ", "monitoring") as task:
        task.communicate()
    assert task.returncode == 0
    progress = ansible.Progress(Screen())
    for line in (tmp_path / "progress").read_text().splitlines():
        progress.take(json.loads(line))
    assert progress.said == {"streampulse_missing": {"one": "gone", "two": "gone"}}


SLOW = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.shell: "touch {folder}/begun; until [ -e {folder}/go ]; do sleep 0.1; done"
    - ansible.builtin.file: {{path: "{folder}/second", state: touch, mode: "0600"}}
"""


def test_a_play_whose_task_was_killed_begins_nothing_more(tmp_path: Path) -> None:
    with played(tmp_path, SLOW.format(folder=tmp_path), "one: ", "site") as task:
        while not (tmp_path / "begun").exists():
            assert task.poll() is None
            time.sleep(0.05)
        task.kill()
        (tmp_path / "go").touch()
        # Until Ansible has closed it.
        task.communicate()
    assert not (tmp_path / "second").exists()


def test_the_command_line(environment: Environment) -> None:
    ports = ["-i", str(paths.repository() / "ansible/ports")]
    arguments = ansible.playbook_command(environment, ["site"], [Path("/s.json"), '{"full": false}'])[1:]
    inventory = ["-i", "inventories/demo/hosts.yml"]
    extra = ["-e", "@/s.json", "-e", '{"full": false}', "playbooks/site.yml"]
    assert arguments == [*inventory, *ports, *extra]
    generated = environment.state / "inventory.json"
    generated.parent.mkdir(parents=True)
    generated.touch()
    arguments = ansible.playbook_command(environment, ["site"], [])[1:]
    assert arguments == [*inventory, "-i", str(generated), *ports, "playbooks/site.yml"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.9, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (92, "1 min 32 s")]
)
def test_times_are_written_as_people_do(seconds: float, text: str) -> None:
    assert took(seconds) == text


PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.assert: {that: "inventory_hostname != 'bad'"}
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug: {msg: "goes on"}
"""


@pytest.mark.parametrize(("playbook", "goes_on"), [("site", False), ("monitoring_stop", True)])
def test_a_host_that_fails_ends_all_but_stopping(tmp_path: Path, playbook: str, goes_on: bool) -> None:
    with played(tmp_path, PLAY, "bad: , good: ", playbook) as task:
        said, _ = task.communicate()
    assert task.returncode != 0
    assert ("goes on" in said) is goes_on, said
