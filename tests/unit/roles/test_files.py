"""streampulse_files: invalid content is not installed, and a validator's output about a secret is hidden."""

import getpass
import grp
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_runs import module

from streampulse.host.check import machine
from streampulse.host.check.host import Host

OWNER = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}


def write(folder: Path, **arguments: Any) -> tuple[bool, str]:
    """Run the module with its record in a folder; return its success and its output."""
    return module("streampulse_files", {"record": str(folder / "record/written.json"), **arguments})


def validator(folder: Path) -> Path:
    """Return a validator that prints its input and its user, and accepts only texts with `good`."""
    script = folder / "check"
    script.write_text('#!/bin/sh\nstat -c %a "$1" >"$0.mode"\ncat "$1" >&2\ngrep -q good "$1"\n')
    script.chmod(0o755)
    return script


def test_invalid_content_is_not_installed(tmp_path: Path) -> None:
    check, file = validator(tmp_path), tmp_path / "file.yml"
    entry = {"path": str(file), "validate": f"{check} %s", **OWNER}
    done, said = write(tmp_path, files=[{**entry, "content": "bad: figures"}])
    assert not done
    assert "its new content is not valid: bad: figures" in said
    assert not file.exists()
    done, said = write(tmp_path, files=[{**entry, "content": "good"}])
    assert done, said
    assert file.read_text() == "good"


def test_a_secret_is_validated_and_not_shown(tmp_path: Path) -> None:
    check, file = validator(tmp_path), tmp_path / "secret.yml"
    entry = {"path": str(file), "validate": f"{check} %s", **OWNER}
    done, said = write(tmp_path, secret_files=[{**entry, "content": "hook: https://bad.example/tOkEn"}])
    assert not done
    assert f"{check} refuses it, in words that may hold secrets" in said
    assert "tOkEn" not in said
    assert not file.exists()
    done, said = write(tmp_path, secret_files=[{**entry, "content": "good tOkEn"}])
    assert done, said
    assert "tOkEn" not in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (tmp_path / "check.mode").read_text() == "600\n", "other users could read it during the check"


def test_the_check_finds_what_differs_from_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "WRITTEN", tmp_path / "record/written.json")
    paths = [tmp_path / name for name in ("kept", "edited", "opened", "removed", "retired")]
    link = tmp_path / "link"
    done, said = write(
        tmp_path,
        files=[{"path": str(each), "content": "a", **OWNER} for each in paths],
        links=[{"path": str(link), "target": "kept"}],
    )
    assert done, said
    done, said = write(tmp_path, absent=[str(paths[4])])
    assert done, said
    assert machine.WRITTEN.stat().st_mode & 0o777 == 0o600
    assert [each.seen for each in machine.drift(Host(), {})] == ["5 files are as the last deploy left them"]
    paths[1].write_text("b")
    paths[2].chmod(0o666)
    paths[3].unlink()
    link.unlink()
    link.symlink_to("edited")
    found = [each.cause.split(" ")[0] for each in machine.drift(Host(), {}) if each.code == "SP-DRIFT-001"]
    assert sorted(found) == sorted(map(str, (*paths[1:4], link)))
