"""Secrets of an environment."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from streampulse.core.errors import OperatorError
from streampulse_ops.environments import inventory, secrets
from streampulse_ops.environments.environment import Environment


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
    with pytest.raises(OperatorError, match=r"export ANSIBLE_VAULT_PASSWORD_FILE=FILE, then inv env secrets demo --wr"):
        secrets.file_for(environment)
    (tmp_path / "vault.yml").write_text(secrets.as_yaml())
    assert set(yaml.safe_load(secrets.as_yaml())["streampulse_secrets"]) == set(secrets.NAMES)
    with pytest.raises(OperatorError, match=r"is not encrypted: \S+/ansible-vault encrypt"):
        secrets.file_for(environment)
    (tmp_path / "vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n00\n")
    with pytest.raises(OperatorError, match="ANSIBLE_VAULT_PASSWORD_FILE"):
        secrets.file_for(environment)


def test_fresh_secrets_are_written_into_the_vault_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    environment = Environment("demo", tmp_path, (), {"provider": "existing"})
    with pytest.raises(OperatorError, match=r"is written encrypted and .*: export ANSIBLE_VAULT_PASSWORD_FILE=FILE"):
        secrets.write_vault(environment)
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(tmp_path / "password"))
    with pytest.raises(OperatorError, match=r"vault\.yml was not written .*password.* was not found"):
        secrets.write_vault(environment)
    (tmp_path / "password").write_text("p\n")
    file = secrets.write_vault(environment)
    assert secrets.file_for(environment) == file
    opened = subprocess.run([inventory.program("ansible-vault"), "view", file], capture_output=True, check=True)
    assert set(yaml.safe_load(opened.stdout)["streampulse_secrets"]) == set(secrets.NAMES)
    (tmp_path / "password").write_text("another\n")
    with pytest.raises(OperatorError, match=r"the password in \S+ does not open \S+vault\.yml .*: export ANSIBLE_"):
        secrets.file_for(environment)
    with pytest.raises(
        OperatorError, match=r"vault\.yml exists, and its secrets may be in use: \S+/ansible-vault edit"
    ):
        secrets.write_vault(environment)
