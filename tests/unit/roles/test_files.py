"""streampulse_files: what is not valid does not land, and what a validator says of a secret is not shown."""

from __future__ import annotations

import getpass
import grp
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

from streampulse_ops import paths
from streampulse_ops.command import program_environment
from streampulse_ops.environments import inventory

LIBRARY = paths.repository() / "ansible/playbooks/library"
OWNER = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}


def write(**arguments: Any) -> tuple[int, str]:
    """Run the module here and return its exit code and what it printed."""
    command = [inventory.program("ansible"), "localhost", "-c", "local", "-M", str(LIBRARY)]
    command += ["-m", "streampulse_files", "-a", json.dumps(arguments)]
    done = subprocess.run(
        command, env=program_environment(inventory.configuration()), capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def validator(folder: Path) -> Path:
    """Return a command that repeats what it reads, says with which rights, and takes only what says `good`."""
    script = folder / "check"
    script.write_text('#!/bin/sh\nstat -c %a "$1" >"$0.mode"\ncat "$1" >&2\ngrep -q good "$1"\n')
    script.chmod(0o755)
    return script


def test_what_is_not_valid_does_not_land(tmp_path: Path) -> None:
    check, file = validator(tmp_path), tmp_path / "file.yml"
    entry = {"path": str(file), "validate": f"{check} %s", **OWNER}
    code, said = write(files=[{**entry, "content": "bad: figures"}])
    assert code != 0
    assert "its new content is not valid: bad: figures" in said
    assert not file.exists()
    code, said = write(files=[{**entry, "content": "good"}])
    assert code == 0, said
    assert file.read_text() == "good"


def test_a_secret_is_validated_and_not_shown(tmp_path: Path) -> None:
    check, file = validator(tmp_path), tmp_path / "secret.yml"
    entry = {"path": str(file), "validate": f"{check} %s", **OWNER}
    code, said = write(secret_files=[{**entry, "content": "hook: https://bad.example/tOkEn"}])
    assert code != 0
    assert f"{check} refuses it, in words that may hold secrets" in said
    assert "tOkEn" not in said
    assert not file.exists()
    code, said = write(secret_files=[{**entry, "content": "good tOkEn"}])
    assert code == 0, said
    assert "tOkEn" not in said
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (tmp_path / "check.mode").read_text() == "600\n", "others could have read it meanwhile"
