"""The role alertmanager's checks of its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible_runs import ANSIBLE, shown

WHOLE = {"to": "a@example.org", "from": "b@example.org", "smarthost": "mail.example.org:587"}
CASES: dict[str, tuple[dict[str, str], list[str]]] = {
    "none": ({}, []),
    "whole": (WHOLE, []),
    "with_login": ({**WHOLE, "username": "u", "password": "p"}, []),
    "without_password": ({**WHOLE, "username": "u"}, ["password"]),
    "empty": ({"to": "a@example.org", "from": ""}, ["from", "smarthost"]),
}


def test_missing_email_settings_are_named(tmp_path: Path) -> None:
    hosts: dict[str, Any] = {name: {"alertmanager_email": email} for name, (email, _) in CASES.items()}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    play = {"vars_files": [str(ANSIBLE / "roles/alertmanager/vars/main.yml")]}
    sources = ["-i", str(tmp_path / "hosts.yml")]
    found = shown(tmp_path, sources, "_alertmanager_email_lacks | sort", play=play)
    assert found == {name: lacks for name, (_, lacks) in CASES.items()}
