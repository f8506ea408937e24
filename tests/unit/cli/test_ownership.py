"""Ownership of files made through sudo, and messages about unusable files."""

import errno
import os
from pathlib import Path

import pytest

from streampulse_ops import ansible, artifacts
from streampulse_ops.cli.console import Screen
from streampulse_ops.cli.ownership import explain, give_to_invoker
from streampulse_ops.environments import secrets
from streampulse_ops.environments.environment import Environment, Host


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """Act as root under sudo, called by account 1234 with group 5678, and note who gets what."""
    found: dict[str, tuple[int, int]] = {}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda file, user, group: found.update({Path(file).name: (user, group)}))
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_GID", "5678")
    return found


def test_files_made_by_root_belong_to_the_caller_of_sudo(
    given: dict[str, tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    environment = Environment("demo", tmp_path, (Host("h", frozenset()),), {"provider": "vagrant"})
    environment.state.mkdir(parents=True)
    secrets.file_for(environment)
    artifacts.write_facts(artifacts.Prepared({}, 0, 0, 0), environment.state / "artifacts.json")
    monkeypatch.setattr(ansible, "playbook_command", lambda *_arguments: ["true"])
    monkeypatch.setattr("streampulse_ops.machines.tools.ensure", lambda *_: None)
    ansible.play(environment, "site", [], Screen(), verbose=False)
    assert set(given) == {"secrets.new", "artifacts.new", "logs", "site.log"}
    assert set(given.values()) == {(1234, 5678)}


def test_without_sudo_nothing_is_given_away(
    given: dict[str, tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    give_to_invoker(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("SUDO_UID")
    give_to_invoker(tmp_path)
    assert given == {}


def test_an_unusable_path_is_named_with_its_owner_and_the_fix(tmp_path: Path) -> None:
    ours = tmp_path / "streampulse"
    ours.mkdir()
    owner = ours.owner()
    text = explain(PermissionError(errno.EACCES, "Permission denied", str(ours / "logs" / "site.log")))
    assert text.startswith(f"{ours}/logs/site.log: Permission denied; {ours} belongs to {owner}: ")
    assert text.endswith(f"run the task as {owner}, or sudo chown -R $(id -u) {ours}")
    assert "chown" not in explain(PermissionError(errno.EACCES, "Permission denied", "/nowhere/at/all"))
    full = explain(OSError(errno.ENOSPC, "No space left on device", str(ours / "new")))
    assert full == f"{ours}/new: No space left on device: make room there, df -h {ours}"
    assert "TMPDIR=FOLDER" in explain(OSError(errno.ENOSPC, "No space left on device"))  # as write() raises it
    assert "ls -ld /nowhere" in explain(FileNotFoundError(errno.ENOENT, "No such file or directory", "/nowhere"))
    assert explain(OSError("odd")).startswith("odd: ")


def test_a_read_only_file_system_has_its_own_fix(tmp_path: Path) -> None:
    said = explain(OSError(errno.EROFS, "Read-only file system", str(tmp_path / "lock")))
    assert said == f"{tmp_path}/lock: Read-only file system: mount for writing what `findmnt --target {tmp_path}` shows"
