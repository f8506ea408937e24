"""What the role alertmanager asks of its settings before it writes anything."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from streampulse_ops import paths
from streampulse_ops.command import program_environment
from streampulse_ops.environments import inventory

ROLE = paths.repository() / "ansible" / "roles" / "alertmanager"
WHOLE = {"to": "a@example.org", "from": "b@example.org", "smarthost": "mail.example.org:587"}


def lacking(email: dict[str, str], folder: Path) -> list[str]:
    """Return what the role says is missing."""
    (folder / "hosts.yml").write_text("all: {hosts: {h: {ansible_connection: local}}}")
    command = [inventory.program("ansible"), "-i", str(folder / "hosts.yml"), "h"]
    command += ["-e", f"@{ROLE / 'vars' / 'main.yml'}", "-e", json.dumps({"alertmanager_email": email})]
    command += ["-m", "ansible.builtin.debug", "-a", "var=_alertmanager_email_lacks"]
    done = subprocess.run(
        command,
        cwd=paths.repository() / "ansible",
        env=program_environment(inventory.configuration()),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(done.stdout.partition("=>")[2])["_alertmanager_email_lacks"]
    return found


@pytest.mark.parametrize(
    ("email", "lacks"),
    [
        ({}, []),
        (WHOLE, []),
        ({**WHOLE, "username": "u", "password": "p"}, []),
        ({**WHOLE, "username": "u"}, ["password"]),
        ({"to": "a@example.org", "from": ""}, ["from", "smarthost"]),
    ],
    ids=lambda value: "-".join(value) or "none",
)
def test_what_an_email_needs_is_named(email: dict[str, str], lacks: list[str], tmp_path: Path) -> None:
    assert sorted(lacking(email, tmp_path)) == lacks
