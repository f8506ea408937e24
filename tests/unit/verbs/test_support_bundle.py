"""``inv support-bundle``: no secret and no host name leaves; doctor reads the archive."""

import base64
import dataclasses
import json
import tarfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sessions import FakeRemote

from streampulse.core.errors import IncompleteError, OperatorError, UsageError
from streampulse_ops.cli.console import Screen
from streampulse_ops.environments import inventory, masking, secrets
from streampulse_ops.environments.environment import Environment, Host
from streampulse_ops.environments.session import Session
from streampulse_ops.machines.existing import Existing
from streampulse_ops.monitoring import findings as catalogue
from streampulse_ops.monitoring.findings import Finding
from streampulse_ops.verbs import doctor, status, support_bundle

WRITER = 'p4ss/word "+ of the writer'
HOSTS = (
    Host("db-1", frozenset({"postgres"}), {"ansible_host": "203.0.113.31", "private_address": "10.0.0.31"}),
    Host("db-10", frozenset({"monitoring"}), {"ansible_host": "203.0.113.32", "private_address": "10.0.0.32"}),
)
FOUND = [
    Finding("unit", "db-1", ok=False, cause="kafka is down on db-1", fix="inv logs kafka", code="SP-HOST-003"),
    Finding("machine", "db-10", ok=True),
]


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "hosts.yml").write_text("all: {hosts: {db-1: {ansible_host: 203.0.113.31}}}\n")
    environment = Environment("demo", tmp_path, HOSTS, {"provider": "existing"})
    own = Existing(environment)
    monkeypatch.setattr(own, "running", lambda _host: True)
    monkeypatch.setattr(masking, "of", lambda _environment: masking.Masks([WRITER]))
    monkeypatch.setattr(doctor, "examine", lambda _session: FOUND)
    monkeypatch.setattr(status, "collect", lambda _session: [])
    monkeypatch.setattr(inventory, "variables", lambda _environment, host: host.variables)
    return Session(environment, own, Screen())


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str, str], tuple[int, str, str]]], None]:
    """Have the hosts answer with a function of the host's name and the command."""

    def answer(answers: Callable[[str, str], tuple[int, str, str]]) -> None:
        class Remote(FakeRemote):
            def run(self, words: list[str], **_more: Any) -> tuple[int, str, str]:
                return answers(self.host.name, " ".join(words))

        monkeypatch.setattr(support_bundle, "Remote", Remote)

    return answer


def read(file: Path) -> dict[str, str]:
    with tarfile.open(file) as archive:
        return {
            member.name.removeprefix("support/"): archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive
        }


def journal(text: str) -> Callable[[str, str], tuple[int, str, str]]:
    """Return hosts that answer with a text in the place of a journal."""

    def answer(_host: str, words: str) -> tuple[int, str, str]:
        return 0, text if "journalctl" in words else "[]", ""

    return answer


def test_secrets_are_masked_and_a_host_has_one_pseudonym(session: Session, hosts: Any, tmp_path: Path) -> None:
    lines = [
        f"the password is {WRITER}, {urllib.parse.quote(WRITER, safe='')}, {json.dumps(WRITER)}",
        base64.b64encode(WRITER.encode()).decode(),
        "api_key=unknown-secret postgresql://writer:unknown-secret@db-1:5432/x",
        "db-1 (10.0.0.31, 203.0.113.31) reached db-10 at 10.0.0.32; client 198.51.100.7, again 198.51.100.7; 127.0.0.1",
    ]
    hosts(journal("\n".join(lines)))
    words = support_bundle.make(session, "2h", dry_run=False)
    (file,) = tmp_path.glob("support-*.tar.gz")
    assert str(file) in words
    assert file.stat().st_mode & 0o777 == 0o600
    files = read(file)
    assert set(files) == {
        "manifest.json", "doctor.json", "versions.json", "metrics.json", "ledger.csv", "releases.csv", "inventory.yml",
        *(f"hosts/host-{number}/{name}" for number in (1, 2) for name in support_bundle.ON_HOST),
    }  # fmt: skip
    assert files["hosts/host-1/journal.log"].splitlines() == [
        'the password is ***, ***, "***"',
        "***",
        "api_key=*** postgresql://writer:***@host-1:5432/x",
        "host-1 (address-1, address-1) reached host-2 at address-2; client other-1, again other-1; 127.0.0.1",
    ]
    for text in files.values():
        assert "unknown-secret" not in text
        assert "db-1" not in text
        assert "203.0.113" not in text
    assert json.loads(files["manifest.json"])["problems"] == []


def test_secrets_of_the_inventory_are_masked_at_any_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receivers = {
        "page": {"webhook_url": "https://hook.example/T0K3N", "pagerduty_key": "R0UT1NG-K3Y", "email_to": "a@b.example"}
    }
    environment = Environment("demo", tmp_path, HOSTS, {"provider": "nspawn", "alertmanager_receivers": receivers})
    file = tmp_path / "secrets.json"
    file.write_text(json.dumps({"streampulse_secrets": {"writer": WRITER}}))
    monkeypatch.setattr(secrets, "file_for", lambda _environment: file)
    assert set(masking.of(environment).values) == {WRITER, "https://hook.example/T0K3N", "R0UT1NG-K3Y"}


def test_an_archive_with_a_secret_inside_base64_is_refused(session: Session, hosts: Any, tmp_path: Path) -> None:
    for before in ("u", "u:", "user:"):
        hosts(journal("basic " + base64.b64encode(f"{before}{WRITER}!".encode()).decode()))
        with pytest.raises(OperatorError, match=r"no archive was written: .* in hosts/host-1/journal\.log"):
            support_bundle.make(session, "2h", dry_run=False)
    assert not list(tmp_path.glob("support-*"))


def test_a_host_that_does_not_answer_is_named_and_the_rest_is_collected(
    session: Session, hosts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(host: str, _words: str) -> tuple[int, str, str]:
        if host == "db-10":
            raise OperatorError("db-10 cannot be reached over SSH: no route")
        return 0, "fine", ""

    hosts(answer)
    with pytest.raises(IncompleteError, match=r"the archive lacks metrics: db-10 cannot be reached.*; db-10: "):
        support_bundle.make(session, "90m", dry_run=False)
    (file,) = tmp_path.glob("support-*.tar.gz")
    assert "hosts/host-1/journal.log" in read(file)
    support_bundle.findings(file, session.screen)
    assert "the archive lacks host-2: host-2 cannot be reached over SSH" in capsys.readouterr().out


def test_doctor_finds_in_the_archive_what_it_found_on_the_hosts(session: Session, hosts: Any, tmp_path: Path) -> None:
    hosts(journal("fine"))
    support_bundle.make(session, "2h", dry_run=False)
    (file,) = tmp_path.glob("support-*.tar.gz")
    found = support_bundle.findings(file, session.screen)
    expected = [
        dataclasses.replace(each, where=each.where.replace("db-10", "host-2").replace("db-1", "host-1"),
                            cause=each.cause.replace("db-1", "host-1"))
        for each in catalogue.explained(FOUND)
    ]  # fmt: skip
    assert found == expected
    with pytest.raises(OperatorError, match="1 of 2 checks found a fault"):
        doctor.show(session.screen, found, as_json=False)


def test_a_dry_run_collects_nothing(session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert support_bundle.make(session, "2h", dry_run=True) == "nothing was collected"
    assert "db-10: journal.log, configuration.txt, system.txt of the last 2h" in capsys.readouterr().out
    assert not list(tmp_path.glob("support-*"))
    with pytest.raises(UsageError, match="--since yesterday is not a duration"):
        support_bundle.make(session, "yesterday", dry_run=True)


@pytest.mark.parametrize("kind", ["missing", "text", "cut", "without_doctor", "bad_findings", "newer"])
def test_a_broken_archive_was_not_looked_at(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "b.tar.gz"
    manifest = json.dumps({"format": 2 if kind == "newer" else 1, "problems": []})
    files = {"manifest.json": manifest, "doctor.json": "{}" if kind == "bad_findings" else "[]"}
    if kind == "without_doctor":
        del files["doctor.json"]
    if kind == "text":
        file.write_text("no archive")
    elif kind != "missing":
        support_bundle.write(file, files)
    if kind == "cut":
        file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(IncompleteError, match=r"is no complete support bundle|is of another release") as caught:
        support_bundle.findings(file, Screen())
    assert caught.value.done == "nothing was looked at"
