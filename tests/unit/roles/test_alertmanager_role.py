"""The role alertmanager's checks of its settings."""

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
    "own_recipients": ({"from": "b@example.org", "smarthost": "mail.example.org:587"}, []),
    "own_recipients_without_server": ({}, ["from", "smarthost"]),
    "empty": ({"to": "a@example.org", "from": ""}, ["from", "smarthost"]),
}


def test_a_key_has_a_file_and_a_missing_key_has_none(tmp_path: Path) -> None:
    given = {
        "streampulse_etc": "/etc/x",
        "alertmanager_slack_url": "",
        "alertmanager_email": {"password": "secret"},
        "alertmanager_receivers": {"page": {"pagerduty_key": "key"}, "ticket": None},
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"a": given}}}))
    play = {"vars_files": [str(ANSIBLE / "roles/alertmanager/vars/main.yml")]}
    found = shown(tmp_path, ["-i", str(tmp_path / "hosts.yml")], "_alertmanager_key_files", play=play)
    assert [(each["path"], each["content"]) for each in found["a"]] == [
        ("/etc/x/alertmanager-smtp", "secret"), ("/etc/x/alertmanager-page-pagerduty", "key"),
    ]  # fmt: skip


def test_missing_email_settings_are_named(tmp_path: Path) -> None:
    own = {"page": {"email_to": "desk@example.org"}}
    hosts: dict[str, Any] = {
        name: {"alertmanager_email": email, "alertmanager_receivers": own if name.startswith("own") else {}}
        for name, (email, _) in CASES.items()
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    play = {"vars_files": [str(ANSIBLE / "roles/alertmanager/vars/main.yml")]}
    sources = ["-i", str(tmp_path / "hosts.yml")]
    found = shown(tmp_path, sources, "_alertmanager_email_lacks | sort", play=play)
    assert found == {name: lacks for name, (_, lacks) in CASES.items()}
