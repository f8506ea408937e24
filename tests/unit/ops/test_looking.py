"""status, doctor, vagrant's listings, secrets, and the program's exit codes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from streampulse.core.errors import OperatorError
from streampulse_ops import paths, services
from streampulse_ops.environments import secrets
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.machines import vagrant
from streampulse_ops.services import Service
from streampulse_ops.verbs import status

HOST = Host("h", frozenset({"kafka", "api"}))
OUTPUT = """\
== kafka.service
Id=kafka.service
ActiveState=active
SubState=running
ActiveEnterTimestamp=Sat 2026-01-31 12:00:00 UTC
PssKiB=318464
== streampulse-api.service
PssKiB=0
== versions
kafka=4.3.1-abc
release=0123
"""


def test_a_service_that_runs_and_one_that_is_not_installed() -> None:
    listed = [Service("kafka", "kafka.service", "kafka"), Service("api", "streampulse-api.service", "api")]
    kafka, api = status.parse(HOST, listed, OUTPUT)
    assert kafka == status.Row("kafka", "h", "active (running)", "2026-01-31 12:00:00 UTC", 311, "4.3.1-abc")
    assert kafka.healthy
    assert api.state == "not installed"
    assert not api.healthy


def test_monitoring_that_nobody_has_set_up_is_not_missed() -> None:
    listed = [Service("prometheus", "prometheus.service", "monitoring", full=True)]
    nowhere = "== prometheus.service\nActiveState=inactive\nSubState=dead\nFragmentPath=\nDropInPaths=\n"
    assert status.parse(HOST, listed, nowhere) == []
    of_others = nowhere.replace("FragmentPath=", "FragmentPath=/usr/lib/systemd/system/prometheus.service")
    assert status.parse(HOST, listed, of_others) == []
    drop_in = "DropInPaths=/etc/systemd/system/prometheus.service.d/streampulse.conf"
    [stopped] = status.parse(HOST, listed, of_others.replace("DropInPaths=", drop_in))
    assert stopped.state == "inactive (dead)"
    assert not stopped.healthy


def test_services_are_those_of_the_roles() -> None:
    names = [service.name for service in services.all_services()]
    base = ["postgres", "kafka", "spark-master", "spark-worker", "job", "generator", "api"]
    assert names[: len(base)] == base
    assert {"node-exporter", "postgres-exporter", "alertmanager", "prometheus", "probe"} <= set(names[len(base) :])
    assert [service.name for service in services.all_services() if not service.full] == base
    assert services.named("postgres").unit == "postgresql@*-main.service"
    assert [service.name for service in services.base_on_host(HOST)] == ["kafka", "api"]
    assert [service.name for service in services.on_host(HOST)] == ["kafka", "api", "node-exporter"]
    assert services.on_host(Host("left", frozenset({"all"}))) == []
    with pytest.raises(OperatorError, match=r"kafak is not a service. There are: postgres, kafka"):
        services.named("kafak")


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


def test_secrets_are_made_once_and_are_their_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    environment = Environment("demo", tmp_path / "inventory", (), {"provider": "vagrant"})
    environment.state.mkdir(parents=True)
    previous = os.umask(0)
    try:
        file = secrets.file_for(environment)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = json.loads(file.read_text())["streampulse_secrets"]
    assert set(first) == set(secrets.NAMES)
    assert len(set(first.values())) == len(first)
    assert json.loads(secrets.file_for(environment).read_text())["streampulse_secrets"] == first
    assert len(first["kafka_cluster_id"]) == 22
    # Made by an older release: what is new is added, the rest stays.
    old = {name: value for name, value in first.items() if not name.startswith("api_")}
    file.write_text(json.dumps({"streampulse_secrets": old}))
    now = json.loads(secrets.file_for(environment).read_text())["streampulse_secrets"]
    assert set(now) == set(secrets.NAMES)
    assert old.items() <= now.items()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_existing_environment_keeps_its_secrets_encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    environment = Environment("demo", tmp_path, (), {"provider": "existing"})
    with pytest.raises(OperatorError, match=r"inv env secrets demo \| ansible-vault encrypt"):
        secrets.file_for(environment)
    (tmp_path / "vault.yml").write_text(secrets.as_yaml())
    assert set(yaml.safe_load(secrets.as_yaml())["streampulse_secrets"]) == set(secrets.NAMES)
    with pytest.raises(OperatorError, match="is not encrypted: ansible-vault encrypt"):
        secrets.file_for(environment)
    (tmp_path / "vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n00\n")
    with pytest.raises(OperatorError, match="ANSIBLE_VAULT_PASSWORD_FILE"):
        secrets.file_for(environment)
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", "/p")
    assert secrets.file_for(environment) == tmp_path / "vault.yml"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--list"], 0, "doctor"),
        (["frobnicate"], 2, "No idea what 'frobnicate' is"),
        (["up", "--frobnicate"], 2, "--frobnicate"),
        (["status", "--env", "stagin"], 1, "stagin is not an environment. There are:"),
        (["open", "grafanna"], 1, "grafanna is not a page. There are: api"),
        (["up", "--env"], 2, "inv: --env needed value and was not given one! See: inv --list"),
        (["logs", "--lines"], 2, "inv: --lines needed value"),
        (["logs", "--lines", "-5", "--env", "staging"], 2, "logs: -5 lines cannot be shown: inv logs job --lines"),
        (["logs", "--lines", "99999999999", "--env", "staging"], 2, "99999999999 lines cannot be shown"),
        ([], 0, "doctor"),
        (["logs", "--level", "loud", "--env", "staging"], 2, "loud is not a level. There are: debug, info"),
        (["top", "--every", "0", "--env", "staging"], 2, "write a number from 1 to 3600"),
        (["silence", "--for", "soon", "--reason", "r", "--all"], 2, "--for soon is not a duration"),
        (["silence", "--for", "30m", "--reason", "r", "--env", "staging"], 2, "silent about what?"),
        # As other programs have it, also of a task that is given a word.
        (["logs", "--help"], 0, "Usage: inv [--core-opts] logs"),
        (["ssh", "sp-local", "--help"], 0, "Usage: inv [--core-opts] ssh"),
        (["frob", "--help"], 2, "No idea what 'frob' is!"),
        (["peek", "-n", "abc"], 2, "an option has a value that it cannot take: 'abc' is not a whole number. See"),
        (["logs", "--lines", "abc"], 2, "'abc' is not a whole number. See: inv --help TASK"),
        (["down", "--env", "staging"], 1, "/proc/streampulse"),  # where the state cannot be written
        (["reset", "--keep", "topics"], 2, "topics is nothing that can be kept. There are: kafka, postgres,"),
        (["reset", "--keep", "postgres"], 2, "inv reset --keep kafka,postgres"),
        (["reset", "--keep", "checkpoints"], 2, "inv reset --keep kafka,postgres,checkpoints"),
        # A variable that is not set must not remove everything.
        (["reset", "--keep=", "--yes"], 2, "--keep names nothing"),
        (["bench", "--seconds", "0"], 2, "--seconds 0"),
        (["status", "--env", "LOCAL"], 1, "A new one: inv env new NAME"),
        # Whoever gives a word too much does not want another task.
        (["open", "api", "docs"], 2, "one task at a time: docs"),
        (["reset", "--dry-run", "--env", "staging", "--keep", "kafka"], 0, "keep all events (Kafka's topics)"),
        (["env", "frob", "x"], 2, "inv env new NAME"),
        (["open", "--env", "staging"], 0, "http://203.0.113.41:8000/"),
        (["open", "docs", "--env", "staging"], 0, "http://203.0.113.41:8000/docs"),
    ],
)
def test_the_program_explains_and_ends_with_the_right_code(arguments: list[str], code: int, said: str) -> None:
    command = [
        sys.executable,
        "-m",
        "streampulse_ops.cli.program",
        "--search-root",
        str(paths.repository()),
        *arguments,
    ]
    environment = {name: value for name, value in os.environ.items() if name != "STREAMPULSE_INVENTORIES"}
    environment["XDG_STATE_HOME"] = "/proc"
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, check=False
    )
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
